"""What the screen shows and the summary counts: a small model, fed with facts, holding no I/O.

Owns: counts, percentiles, identities, and which roles are in trouble. Does not own: how any of it looks (`screen`).
Latencies are kept as a bounded histogram, so that a run of a week needs no more memory than a run of a minute.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime

from livery_cli.up.events import Event

_RECENT = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity as the agent holds it now."""

    spiffe_id: str
    serial: str
    expires_at: datetime
    renew_at: datetime | None


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call between the demo services."""

    source: str
    target: str
    method: str
    path: str
    outcome: str  # allowed, denied or failed
    reason: str
    decision_id: str
    milliseconds: float


@dataclass(slots=True)
class Latencies:
    """A histogram with buckets 5 % apart: quantiles within 5 %, memory bounded."""

    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, milliseconds: float) -> None:
        """Count one call."""
        bucket = 0
        edge = 0.1
        while edge < milliseconds and bucket < 300:
            bucket, edge = bucket + 1, edge * 1.05
        self.buckets[bucket] += 1

    def quantile(self, q: float) -> float | None:
        """The latency in milliseconds under which a share `q` of the calls stayed; None before the first call."""
        total = sum(self.buckets.values())
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= q * total:
                return round(0.1 * 1.05**bucket, 2)
        return None


@dataclass(slots=True)
class Board:
    """All that `livery up` knows of its run."""

    identities: dict[str, Identity] = field(default_factory=dict)
    rotations: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    by_call: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    troubles: dict[str, str] = field(default_factory=dict)
    restarts: Counter[str] = field(default_factory=Counter)
    recent: deque[Event] = field(default_factory=lambda: deque(maxlen=_RECENT))
    denied_because: str = ""

    def hold(self, name: str, identity: Identity) -> bool:
        """Take in the identity that `name` has now; true if it replaced another one: a rotation."""
        before = self.identities.get(name)
        self.identities[name] = identity
        rotated = before is not None and before.serial != identity.serial
        self.rotations[name] += rotated
        return rotated

    def count(self, call: Call) -> None:
        """Take in one finished call."""
        self.outcomes[call.outcome] += 1
        noun = "/".join(call.path.split("/")[:2])
        self.by_call[call.source, call.target, f"{call.method} {noun}/…", call.outcome] += 1
        self.latencies.add(call.milliseconds)

    def summary(self) -> dict[str, object]:
        """The fields of the `stopped` event."""
        return {
            "rotations": sum(self.rotations.values()),
            "calls": sum(self.outcomes.values()),
            "allowed": self.outcomes["allowed"],
            "denied": self.outcomes["denied"],
            "failures": self.outcomes["failed"],
            "restarts": dict(self.restarts),
            "p50_ms": self.latencies.quantile(0.50),
            "p99_ms": self.latencies.quantile(0.99),
        }
