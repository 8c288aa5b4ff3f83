"""A clock that stands still until a test moves it.

`advance` moves both hands and wakes whoever slept until then; `run_for` does so sleeper by sleeper, so that a loop that
sleeps again and again runs as often as it would have. `sleepers` waits until that many tasks are asleep.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 2, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """A `Clock` whose time is what the test says."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._monotonic = 1000.0
        self._asleep: list[tuple[float, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._monotonic + seconds, waiting)
        self._asleep.append(entry)
        self._changed.set()
        try:
            await waiting
        finally:
            if entry in self._asleep:
                self._asleep.remove(entry)

    def advance(self, by: timedelta | float) -> None:
        """Move time on and wake every sleeper whose time has come."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        for until, waiting in list(self._asleep):
            if until <= self._monotonic + 1e-9 and not waiting.done():
                waiting.set_result(None)

    def set_wall(self, now: datetime) -> None:
        """Step the wall clock, as an administrator or NTP does; the stopwatch does not notice."""
        self._now = now

    async def run_for(self, by: timedelta | float) -> None:
        """Move time on from sleeper to sleeper, letting woken tasks run in between."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        end = self._monotonic + seconds
        await settle()
        while True:
            due = [until for until, waiting in self._asleep if until <= end and not waiting.done()]
            self.advance(max(min(due, default=end) - self._monotonic, 0.0))
            await settle()
            if not due:
                return

    async def sleepers(self, count: int) -> None:
        """Wait (in real time, at most 10 s) until `count` tasks are asleep."""
        async with asyncio.timeout(10):
            while len(self._asleep) < count:
                self._changed.clear()
                await self._changed.wait()


async def settle(rounds: int = 20) -> None:
    """Let every task that can run, run."""
    for _ in range(rounds):
        await asyncio.sleep(0)
