"""How this agent is doing, in the terms an operator asks about: last success, last error, who is out of date.

Owns: `Status`, a record the keeper writes and the doors read. Does not own: what is done about any of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, why, when, and how many times in a row."""

    work: str
    error: str
    at: datetime
    times: int


@dataclass(slots=True)
class Status:
    """The keeper's own account. `failures` is the work that does not succeed now, `last_error` the latest failure."""

    started_at: datetime
    synced_at: datetime | None = None
    acknowledged: int | None = None
    renewals: int = 0
    last_error: Failure | None = None
    skews: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def skew(self) -> str:
        """Why a clock seems to be wrong, this node's or the CA's; empty if neither does."""
        return next(iter(self.skews.values()), "")

    def note_skew(self, work: str, why: str) -> None:
        """Note that this work met a wrong clock; an empty reason takes that back."""
        if why:
            self.skews[work] = why
        else:
            self.skews.pop(work, None)

    def failed(self, work: str, error: str, at: datetime) -> Failure:
        """Note a failure of this piece of work."""
        before = self.failures.get(work)
        failure = Failure(work, error, at, (before.times if before else 0) + 1)
        self.failures[work] = self.last_error = failure
        return failure

    def succeeded(self, work: str) -> Failure | None:
        """Note that this piece of work succeeded; returns the failure that is over, if there was one."""
        return self.failures.pop(work, None)
