"""The policy decision point: whoever asks, here a call meets the policies of the moment and gets an answer with an id.

Owns: the current engine, ids, the time of a decision, its log entry and its numbers. Does not own: how calls are
judged (`engine`), where policies come from (`bundles`), and who may ask (`doors`).

Invariants: every answer has an id and is in the log before it is given. While there are no policies, nobody decides:
`Reason.NO_DECISION`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from livery.runtime.clock import Clock
from livery.runtime.metrics import Metrics
from livery_policy.decisions.log import DecisionLog
from livery_policy.decisions.record import DecisionRecord
from livery_policy.engine.decide import Engine, Judgement
from livery_policy.errors import UnknownDecision
from livery_policy.model.calls import Call, Unreadable
from livery_policy.model.decision import Decision, PolicyVersion, Reason

_EXPLAINING_SHARE = 0.1  # of the time: with thousands of policies an explanation costs milliseconds


def random_id() -> str:
    """A decision's id: `d-` (so that it is no serial number and no SPIFFE ID) and 96 random bits."""
    return f"d-{secrets.token_hex(12)}"


class DecisionPoint:
    """Decides with the engine it was last given. `explained_per_second` bounds what denials may cost."""

    def __init__(
        self,
        clock: Clock,
        log: DecisionLog,
        metrics: Metrics,
        *,
        new_id: Callable[[], str] = random_id,
        explained_per_second: int = 200,
    ) -> None:
        self._clock = clock
        self._log = log
        self._new_id = new_id
        self._engine: Engine | None = None
        self._budget = _PerSecond(explained_per_second)
        counter = metrics.counter("decisions", "Decisions by outcome and class of reason.", ["outcome", "reason"])
        self._counted = {r: counter.labels(str(Decision("", r).outcome), str(r)) for r in Reason}
        self._seconds = metrics.histogram("decision_seconds", "Seconds from a call to its decision.")
        self._lost = metrics.counter("decision_lines_lost", "Decisions whose line in the log could not be written.")

    @property
    def engine(self) -> Engine | None:
        """The engine that decides now."""
        return self._engine

    @property
    def version(self) -> PolicyVersion | None:
        """The version of the policies that decide now."""
        return self._engine.version if self._engine is not None else None

    def use(self, engine: Engine) -> None:
        """Decide with this engine from the next call on."""
        self._engine = engine

    def decide(self, call: Call, asked_by: str, *, refused: Unreadable | None = None) -> Decision:
        """Decide a call, or record that a door could not even read it (`refused`). Never raises."""
        began = self._clock.monotonic()
        decision = self._decision(self._judge(call, refused, began))
        if not self._log.add(DecisionRecord(decision, call, asked_by, self._clock.now())):
            self._lost.inc()
        self._counted[decision.reason].inc()
        self._seconds.observe(self._clock.monotonic() - began)
        return decision

    def explain(self, decision_id: str) -> DecisionRecord:
        """The record of a decision, its nearest policies included if that is still possible, or `UnknownDecision`."""
        record = self._log.find(decision_id)
        decision, engine = record.decision, self._engine
        if decision.reason is not Reason.NOT_PERMITTED or decision.nearest or engine is None:
            return record
        if engine.version != decision.version or not record.is_whole:
            return record
        again = engine.judge(record.call, record.at)
        return replace(record, decision=replace(decision, nearest=again.nearest))

    def _judge(self, call: Call, refused: Unreadable | None, monotonic: float) -> Judgement | Unreadable:
        if refused is not None:
            return refused
        if self._engine is None:
            return Unreadable(Reason.NO_DECISION, "no policies are loaded yet", call.dropped)
        judgement = self._engine.judge(call, self._clock.now(), explain=self._budget.has_left(monotonic))
        if judgement.nearest:
            self._budget.spend(self._clock.monotonic() - monotonic)
        return judgement

    def _decision(self, made: Judgement | Unreadable) -> Decision:
        if isinstance(made, Unreadable):
            return Decision(self._new_id(), made.reason, self.version, detail=made.detail, dropped=made.dropped)
        return Decision(
            id=self._new_id(),
            reason=made.reason,
            version=made.version,
            policies=made.policies,
            detail=made.detail,
            nearest=made.nearest,
            errors=made.errors,
            dropped=made.dropped,
        )


class _PerSecond:
    """So many a second, and not more than a part of the second's time; what is not used is not saved up."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = -1
        self._left = 0
        self._time_left = 0.0

    def has_left(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._left, self._time_left = int(now), self._limit, _EXPLAINING_SHARE
        return self._left > 0 and self._time_left > 0

    def spend(self, seconds: float) -> None:
        self._left -= 1
        self._time_left -= seconds


__all__ = ["DecisionPoint", "UnknownDecision", "random_id"]
