"""Holding the wall clock against what it said before, since a certificate is a statement about time.

Owns: the one `now` of a group of requests, the stamp of a journal line, the time by which things may be forgotten, and
saying when the clock cannot be trusted. Does not own: the clock.

Invariants: stamps never go back. Nothing is issued behind the last journalled time: a step back within the backdate is
bridged by staying at that time, a greater one refuses until the clock has caught up. A clock that jumps ahead makes
nobody forget what is still alive.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from livery.runtime.clock import Clock
from livery_ca.certificates.profile import BACKDATE
from livery_ca.issuance.errors import ClockBehind

TOLERANCE = timedelta(seconds=60)  # how far wall and stopwatch may part before the clock is called doubtful
STEADY = timedelta(minutes=10)  # for how long they must then agree before it is trusted again
_log = structlog.get_logger("livery.ca.clock")


class TimeGuard:
    """The time, as an issuer may use it."""

    def __init__(self, clock: Clock, last_journalled: datetime | None = None) -> None:
        """Begin at the newest line of the journal, or with a clock that nothing is known of yet."""
        wall = clock.now()
        self._clock = clock
        self._last = last_journalled
        self._anchor = self._began = (wall, clock.monotonic())
        self._jumped_at: float | None = None
        self._problem = ""
        if last_journalled is not None:
            self._began = (min(wall, last_journalled), clock.monotonic())
            if (behind := last_journalled - wall) > TOLERANCE:
                self._doubt(f"at start the clock was {_seconds(behind)} s behind the last issuance")

    def now(self) -> datetime:
        """The time at which a group is issued. Raises `ClockBehind`."""
        wall = self._clock.now()
        self._compare(wall)
        if self._last is None or wall >= self._last:
            return wall
        behind = self._last - wall
        if behind >= BACKDATE:
            why = f"it is {_seconds(behind)} s behind the last issuance, at {self._last.isoformat()}"
            fix = "set the clock; if it was ahead before, issuance resumes by itself at that time"
            raise ClockBehind("nothing is issued: the clock is behind", why=why, fix=fix)
        return self._last

    def stamp(self) -> datetime:
        """The time for a journal line, never before the one stamped last."""
        wall = self._clock.now()
        self._last = wall if self._last is None else max(wall, self._last)
        return self._last

    def reached(self) -> datetime:
        """The time that has surely been reached, by the journal at start and the stopwatch since.

        What had ended by then may be forgotten for good. It stays behind a wall clock that jumped ahead, and behind by
        the time that this authority was away, until the next start: forgetting late does no harm.
        """
        began, stopwatch = self._began
        return min(self._clock.now(), began + timedelta(seconds=self._clock.monotonic() - stopwatch))

    @property
    def problem(self) -> str:
        """Why the clock is not to be trusted, or an empty text."""
        self._compare(self._clock.now())
        return self._problem

    def _compare(self, wall: datetime) -> None:
        """Hold the wall against the stopwatch; a jump moves the anchor, so each is found once."""
        stopwatch = self._clock.monotonic()
        anchored_wall, anchored_stopwatch = self._anchor
        drift = (wall - anchored_wall) - timedelta(seconds=stopwatch - anchored_stopwatch)
        if abs(drift) > TOLERANCE:
            self._anchor = (wall, stopwatch)
            self._doubt(f"the clock jumped by {_seconds(drift)} s at {wall.isoformat()}")
        elif self._jumped_at is not None and stopwatch - self._jumped_at > STEADY.total_seconds():
            self._jumped_at, self._problem = None, ""
            _log.info("clock.steady")

    def _doubt(self, problem: str) -> None:
        self._jumped_at, self._problem = self._clock.monotonic(), problem
        _log.warning("clock.doubtful", problem=problem, fix="check this machine's time synchronisation")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():+.0f}"
