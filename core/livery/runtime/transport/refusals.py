"""Saying why a connection was refused or closed: to the audit trail, and as a number.

Owns: the form of these records, and a bound on how many of them one holder can cause. Does not own: the decision.

Invariants: a refusal of somebody whose certificate TLS accepted is always recorded, unless it merely came too often;
that, and what anybody can cause, is recorded up to a rate per holder (a UID, an address, or all strangers together),
and the next record counts the rest.
"""

from __future__ import annotations

from collections import Counter

from livery.errors import LiveryError
from livery.runtime.audit import Audit
from livery.runtime.caller import ip_of
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import OverLimit, address_key

STRANGERS = "strangers"
_PER_SECOND = 10
_HOLDERS = 1024  # of whom what was left out is remembered; the metric counts everybody's


def reason_of(error: LiveryError) -> str:
    """Return the stable word for a refusal."""
    return error.reason if isinstance(error, OverLimit) else error.code


def sender(address: str) -> str:
    """Return whom a connection from "127.0.0.1:3344" or "[::1]:3344" is counted for."""
    return address_key(ip_of(address))


class Refusals:
    """One door's refusals."""

    def __init__(self, door: str, audit: Audit, metrics: Metrics, clock: Clock) -> None:
        self._door = door
        self._audit = audit
        self._clock = clock
        self._total = metrics.counter("door_refusals", "Connections refused or closed by a door.", ("door", "reason"))
        self._second = -1
        self._recorded: Counter[tuple[str, str]] = Counter()
        self._left_out: Counter[tuple[str, str]] = Counter()

    def count(self, reason: str) -> None:
        """Count, and no more: nobody has to answer for it."""
        self._total.labels(self._door, reason).inc()

    def tell(self, reason: str, why: str, **who: object) -> None:
        """Record a refused connection."""
        self.count(reason)
        self._record("connection.open", reason, why, who)

    def tell_bounded(self, holder: str, reason: str, why: str, **who: object) -> None:
        """Record a refused connection, up to a rate for this reason and holder."""
        self.count(reason)
        key = (reason, holder)
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second = second
            self._recorded.clear()
        self._recorded[key] += 1
        if self._recorded[key] > _PER_SECOND:
            if len(self._left_out) < _HOLDERS or key in self._left_out:
                self._left_out[key] += 1
            return
        left_out = self._left_out.pop(key, 0)
        self._record("connection.open", reason, why, {**who, "left_out": left_out} if left_out else who)

    def tell_closed(self, reason: str, why: str, **who: object) -> None:
        """Record that a connection, once let in, was closed."""
        self.count(reason)
        self._record("connection.keep", reason, why, who)

    def _record(self, event: str, reason: str, why: str, who: dict[str, object]) -> None:
        try:
            self._audit.record(event, "refused", door=self._door, reason=reason, why=why, **who)
        except LiveryError as error:  # the refusal stands; that it is nowhere to be read must at least be in the log
            get_logger("livery.door").error("a refusal could not be recorded", reason=reason, error=str(error))
