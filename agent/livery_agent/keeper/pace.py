"""The pace of recurring work: which piece may be tried now, how each attempt went, and how long there is nothing to do.

Owns: the pause after each attempt, the account of failures that operators read, and the length of the keeper's sleep.
Does not own: the work itself, or what follows from a failure (`keeper`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery_agent import schedule
from livery_agent.errors import NotInForce
from livery_agent.inspection.status import Status

log = get_logger(__name__)

BREATH = 0.01  # seconds: timers fire a little early, and an early look must not become a busy loop


@dataclass(slots=True)
class Chore:
    """A piece of recurring work and when (on the stopwatch) it may be tried next."""

    name: str
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """When the keeper's chores are done. `interval` is the pause between two successes of one that is always due."""

    status: Status
    clock: Clock
    random: Callable[[], float]
    interval: timedelta

    def is_time(self, chore: Chore) -> bool:
        """Whether its pause is over."""
        return self.clock.monotonic() >= chore.not_before

    def succeeded(self, chore: Chore, *, rests: bool) -> None:
        """Note a success; a chore that `rests` comes again after an interval, others whenever there is work."""
        self.status.note_skew(chore.name, "")
        over = self.status.succeeded(chore.name)
        if over is not None:
            log.info("recovered", work=chore.name, after=over.times)
        chore.not_before = self.clock.monotonic() + (self._spread_interval() if rests else 0.0)

    def failed(self, chore: Chore, error: Exception, urgent: schedule.Renewal | None) -> None:
        """Note a failure; `urgent` is the life that the chore should renew before it ends."""
        now = self.clock.now()
        failure = self.status.failed(chore.name, str(error), now)
        self.status.note_skew(chore.name, str(error) if isinstance(error, NotInForce) else "")
        remaining = urgent.expires_at - now if urgent else None
        wait = schedule.pause(failure.times, self.interval, remaining).total_seconds()
        chore.not_before = self.clock.monotonic() + wait
        if failure.times == 1:
            log.warning("work failed", work=chore.name, error=str(error), again_in=round(wait, 1))

    def nap(self, chores: Iterable[Chore], lives: Iterable[schedule.Renewal]) -> float:
        """Seconds until the next look: a tick of the lives held, or less if a chore's pause ends before that."""
        now = self.clock.monotonic()
        pauses = (chore.not_before - now for chore in chores if chore.not_before > now)
        return max(min((schedule.tick(lives).total_seconds(), *pauses)), BREATH)  # a long step leaves no pause

    def _spread_interval(self) -> float:
        # A fleet that started together must not ask together for ever.
        return self.interval.total_seconds() * (1 + schedule.draw_jitter(self.random))
