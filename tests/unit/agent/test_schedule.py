"""When an SVID is renewed and how long a failure is waited out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from livery_agent.schedule import MAX_TICK, MIN_TICK, Renewal, draw_jitter, due, pause, tick

T0 = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Item:
    name: str
    renewal: Renewal | None
    is_stale: bool = False


def test_an_svid_is_due_at_half_of_its_life_from_receipt():
    renewal = Renewal(T0, T0 + HOUR)
    assert renewal.at == T0 + HOUR / 2
    assert not renewal.is_due(T0 + HOUR / 2 - SECOND)
    assert renewal.is_due(T0 + HOUR / 2)


def test_the_jitter_is_a_tenth_of_the_half_life_to_either_side():
    assert Renewal(T0, T0 + HOUR, -0.1).at == T0 + timedelta(minutes=27)
    assert Renewal(T0, T0 + HOUR, 0.1).at == T0 + timedelta(minutes=33)


def test_hazard_24_the_lifetime_counts_from_receipt_so_the_backdate_is_ignored():
    """A 30 s certificate backdated by 10 s has 30 s to live, not 40: it is due after 15 s, not after 10 or 20."""
    issued_with_backdate = T0 - timedelta(seconds=10)
    renewal = Renewal(received_at=T0, expires_at=issued_with_backdate + timedelta(seconds=40))
    assert renewal.at == T0 + timedelta(seconds=15)


def test_hazard_24_a_machine_that_slept_through_the_renewal_finds_it_due_when_it_wakes():
    """Wall time is asked; that the stopwatch stood still during the suspension does not matter."""
    renewal = Renewal(T0, T0 + HOUR)
    assert renewal.is_due(T0 + timedelta(hours=9))
    assert renewal.is_over(T0 + timedelta(hours=9))


def test_a_clock_set_back_to_before_receipt_makes_the_svid_due():
    renewal = Renewal(T0, T0 + HOUR)
    assert renewal.is_due(T0 - timedelta(minutes=10))
    assert not renewal.is_due(T0 - timedelta(seconds=1)), "slewing is not setting"


def test_an_svid_ends_exactly_at_its_end():
    renewal = Renewal(T0, T0 + HOUR)
    assert not renewal.is_over(T0 + HOUR - SECOND)
    assert renewal.is_over(T0 + HOUR)


def test_an_svid_that_was_over_on_receipt_has_no_negative_life():
    renewal = Renewal(T0, T0 - HOUR)
    assert renewal.lifetime == timedelta(0)
    assert renewal.is_due(T0)


def test_a_draw_spans_the_whole_range_of_the_jitter():
    assert draw_jitter(lambda: 0.0) == -0.1
    assert draw_jitter(lambda: 0.5) == 0.0
    assert draw_jitter(lambda: 1.0) == 0.1


def test_those_without_an_svid_come_first_then_the_nearest_end():
    late, soon = Item("late", Renewal(T0 - HOUR, T0 + HOUR)), Item("soon", Renewal(T0 - HOUR, T0 + SECOND))
    fresh, none = Item("fresh", Renewal(T0, T0 + HOUR)), Item("none", None)
    assert [i.name for i in due([late, fresh, soon, none], T0)] == ["none", "soon", "late"]


def test_an_svid_made_for_an_earlier_edition_is_due_whatever_the_time():
    stale = Item("stale", Renewal(T0, T0 + HOUR), is_stale=True)
    assert due([stale], T0) == (stale,)


def test_those_that_are_equally_urgent_keep_their_order():
    items = [Item(name, None) for name in "abc"]
    assert [i.name for i in due(items, T0)] == ["a", "b", "c"]


def test_a_tick_is_a_twentieth_of_the_shortest_life_within_bounds():
    short, long = Renewal(T0, T0 + timedelta(seconds=30)), Renewal(T0, T0 + 24 * HOUR)
    assert tick([long, short]) == timedelta(seconds=1.5)
    assert tick([long]) == MAX_TICK
    assert tick([]) == MAX_TICK
    assert tick([Renewal(T0, T0)]) == MIN_TICK


def test_a_pause_grows_by_half_with_each_failure_up_to_twelve_intervals():
    interval = timedelta(seconds=5)
    assert pause(0, interval) == interval
    assert pause(1, interval) == timedelta(seconds=7.5)
    assert pause(2, interval) == timedelta(seconds=11.25)
    assert pause(1_000_000, interval) == timedelta(seconds=60)


def test_a_pause_leaves_ten_attempts_in_what_is_left_of_a_life():
    assert pause(50, timedelta(seconds=5), remaining=timedelta(seconds=20)) == timedelta(seconds=2)
    assert pause(50, timedelta(seconds=5), remaining=timedelta(milliseconds=1)) == MIN_TICK


def test_once_the_life_is_over_haste_is_over_too():
    assert pause(50, timedelta(seconds=5), remaining=timedelta(0)) == timedelta(seconds=60)
