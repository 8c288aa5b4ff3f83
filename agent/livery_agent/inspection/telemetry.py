"""The agent's numbers for Prometheus: read from what there is, whenever somebody asks.

Owns: which numbers there are and how they are named. Does not own: counting calls and connections (the front door
does).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from livery.runtime.clock import Clock
from livery.runtime.metrics import Metrics
from livery_agent.inspection.document import Scene, state_of

STATES = ("valid", "pending", "refused", "expired")


def watch(metrics: Metrics, scene: Callable[[], Scene], clock: Clock) -> None:
    """Register every number; each is worked out at the moment it is read."""

    def show(name: str, documentation: str, value: Callable[[Scene, datetime], float]) -> None:
        metrics.gauge(name, documentation).set_function(lambda: value(scene(), clock.now()))

    by_state = metrics.gauge(
        "agent_identities", "Identities of this node's entries, by the state of their SVID", ("state",)
    )
    for state in STATES:
        by_state.labels(state).set_function(partial(_count, scene, clock, state))
    show("agent_soonest_expiry_seconds", "Seconds until the first SVID of a workload ends", _soonest)
    show("agent_node_expiry_seconds", "Seconds until this node's own SVID ends", _node_expiry)
    show("agent_sync_age_seconds", "Seconds since the CA last told this node its entries", _sync_age)
    show("agent_failing_work", "Pieces of work that do not succeed at the moment", lambda s, _: len(s.status.failures))
    show("agent_clock_skew", "Whether a clock seems to be wrong, here or at the CA", lambda s, _: bool(s.status.skew))
    show("agent_bundle_sequence", "Sequence number of our bundle", _sequence)
    show("agent_streams", "Open Workload API streams", lambda s, _: s.streams)
    show("agent_jwt_svids", "JWT-SVIDs kept for reuse", lambda s, _: s.jwt_svids)
    show("agent_renewals", "SVIDs received for workloads since the start", lambda s, _: s.status.renewals)


def _count(scene: Callable[[], Scene], clock: Clock, state: str) -> float:
    now = clock.now()
    return sum(1 for identity in scene().snapshot.identities if state_of(identity, now) == state)


def _soonest(scene: Scene, now: datetime) -> float:
    ends = [i.renewal.expires_at for i in scene.snapshot.identities if i.renewal is not None]
    return (min(ends) - now).total_seconds() if ends else float("nan")


def _node_expiry(scene: Scene, now: datetime) -> float:
    return (scene.node_renewal.expires_at - now).total_seconds() if scene.node_renewal else float("nan")


def _sync_age(scene: Scene, now: datetime) -> float:
    return (now - scene.status.synced_at).total_seconds() if scene.status.synced_at else float("nan")


def _sequence(scene: Scene, _now: datetime) -> float:
    bundle = scene.snapshot.bundle
    return float(bundle.sequence or 0) if bundle is not None else float("nan")
