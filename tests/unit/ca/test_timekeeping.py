"""The clock is held against the journal and the stopwatch (a certificate is a statement about time)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from livery_ca.issuance.errors import ClockBehind
from livery_ca.issuance.timekeeping import TimeGuard
from tests.fakes.clock import START, FakeClock

SECOND = timedelta(seconds=1)


def test_a_clock_that_runs_on_is_trusted(clock: FakeClock) -> None:
    guard = TimeGuard(clock, START - timedelta(days=3))  # it was switched off meanwhile
    for _ in range(5):
        clock.advance(3600)
        assert guard.now() == clock.now()
    assert guard.problem == ""


def test_nothing_is_issued_behind_the_last_journalled_time(clock: FakeClock) -> None:
    """And it resumes by itself once the clock has caught up."""
    guard = TimeGuard(clock, START + 10 * SECOND)
    with pytest.raises(ClockBehind) as refusal:
        guard.now()
    assert refusal.value.fix
    clock.advance(1)
    assert guard.now() == START + 10 * SECOND
    clock.advance(60)
    assert guard.now() == clock.now()


def test_a_small_step_back_is_bridged_by_standing_still(clock: FakeClock) -> None:
    """NTP steps by parts of a second: stamps do not go back, and issuing does not stop."""
    guard = TimeGuard(clock)
    clock.advance(100)
    before = guard.stamp()
    clock.set_wall(before - 2 * SECOND)
    assert guard.now() == before
    assert guard.stamp() == before
    clock.advance(3)
    assert guard.stamp() == before + SECOND


def test_a_step_back_by_more_than_the_backdate_refuses(clock: FakeClock) -> None:
    guard = TimeGuard(clock)
    guard.stamp()
    clock.set_wall(START - 10 * SECOND)
    with pytest.raises(ClockBehind):
        guard.now()


@pytest.mark.parametrize("jump", [timedelta(seconds=61), timedelta(seconds=-61), timedelta(hours=1)])
def test_a_jump_against_the_stopwatch_is_said_until_the_clock_was_steady(clock: FakeClock, jump: timedelta) -> None:
    guard = TimeGuard(clock)
    clock.set_wall(START + jump)
    assert "jumped" in guard.problem
    clock.advance(599)
    assert "jumped" in guard.problem
    clock.advance(2)
    assert guard.problem == ""


def test_a_jump_is_found_by_whoever_asks_for_the_time(clock: FakeClock) -> None:
    """Hazard 18: at each group. One that is over before the next look at the health is told all the same."""
    guard = TimeGuard(clock)
    clock.set_wall(START + timedelta(hours=1))
    guard.now()
    clock.set_wall(START)
    guard.now()
    assert "jumped by -3600 s" in guard.problem


def test_a_drift_within_a_minute_is_no_jump(clock: FakeClock) -> None:
    guard = TimeGuard(clock)
    clock.set_wall(START + 60 * SECOND)
    assert guard.problem == ""


def test_a_clock_behind_the_journal_at_start_is_said(clock: FakeClock) -> None:
    guard = TimeGuard(clock, START + timedelta(minutes=5))
    assert "behind" in guard.problem


def test_an_empty_journal_gives_no_bound(clock: FakeClock) -> None:
    guard = TimeGuard(clock, None)
    assert guard.now() == START


def test_the_time_that_was_surely_reached_runs_by_the_stopwatch(clock: FakeClock) -> None:
    """Neither a jump ahead nor a clock that was wrong at start makes anything end early; a step back is believed."""
    guard = TimeGuard(clock)
    clock.advance(100)
    assert guard.reached() == clock.now()
    clock.set_wall(START + timedelta(days=365))
    assert guard.reached() == START + 100 * SECOND
    clock.advance(5)
    assert guard.reached() == START + 105 * SECOND
    clock.set_wall(START + 50 * SECOND)
    assert guard.reached() == START + 50 * SECOND


@pytest.mark.parametrize("away", [timedelta(days=3), -timedelta(hours=1)])
def test_the_time_that_was_surely_reached_begins_at_the_journal(clock: FakeClock, away: timedelta) -> None:
    """A clock that was wrong at start is no better; one that is behind is not run ahead of."""
    guard = TimeGuard(clock, START - away)
    assert guard.reached() == min(START - away, START)
    clock.advance(60)
    assert guard.reached() == min(START - away, START) + 60 * SECOND
    clock.set_wall(START + timedelta(days=365))
    assert guard.reached() == min(START - away, START) + 60 * SECOND
