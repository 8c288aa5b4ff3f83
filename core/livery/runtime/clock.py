"""Time as a collaborator: the one module, besides each role's `main.py`, that reads a clock.

Owns: the `Clock` protocol, the system's clock, and a system clock that is wrong by a known offset (for drills and tests
of skew). Does not own: schedules; those are pure functions of values and a time.

Invariant: `now` is an aware UTC time; `monotonic` never goes back. Only differences of `monotonic` mean anything.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a component needs of time: the wall's, the stopwatch's, and a way to wait."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a stopwatch that never goes back and stops while the machine is suspended."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; at once (but after letting others run) if that is zero or less."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """The machine's wall time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(max(seconds, 0.0))


class SkewedClock(SystemClock):
    """A machine whose wall clock is wrong by `offset`; its stopwatch is right, as on a real machine."""

    __slots__ = ("_offset",)

    def __init__(self, offset: timedelta) -> None:
        self._offset = offset

    def now(self) -> datetime:
        """The wall time this wrong clock shows, in UTC."""
        return super().now() + self._offset
