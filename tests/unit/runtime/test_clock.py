"""Clocks: the system's, the wrong one, and the one tests move."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from livery.runtime.clock import Clock, SkewedClock, SystemClock
from tests.fakes.clock import START, FakeClock


def test_the_system_clock_is_aware_and_in_utc() -> None:
    """A naive time would compare with nothing."""
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)


async def test_the_system_clock_sleeps_about_as_long_as_it_was_told() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.02)
    assert 0.015 < clock.monotonic() - before < 5


async def test_sleeping_for_a_negative_time_returns_at_once() -> None:
    """A deadline that has passed is not an error."""
    async with asyncio.timeout(1):
        await SystemClock().sleep(-5)


def test_a_skewed_clock_is_wrong_by_its_offset_and_its_stopwatch_is_right() -> None:
    clock = SkewedClock(timedelta(hours=1))
    assert timedelta(minutes=59) < clock.now() - SystemClock().now() < timedelta(minutes=61)
    assert abs(clock.monotonic() - SystemClock().monotonic()) < 5


async def test_the_fake_clock_wakes_a_sleeper_only_when_its_time_has_come() -> None:
    clock = FakeClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await clock.sleepers(1)
    clock.advance(9)
    await asyncio.sleep(0)
    assert not sleeper.done()
    clock.advance(timedelta(seconds=1))
    await sleeper
    assert clock.now() == START + timedelta(seconds=10)


async def test_running_the_fake_clock_lets_a_loop_tick_as_often_as_it_would() -> None:
    clock = FakeClock()
    ticks: list[datetime] = []

    async def tick() -> None:
        while True:
            await clock.sleep(5)
            ticks.append(clock.now())

    ticking = asyncio.create_task(tick())
    await clock.run_for(timedelta(seconds=22))
    ticking.cancel()
    assert [(at - START).total_seconds() for at in ticks] == [5, 10, 15, 20]
