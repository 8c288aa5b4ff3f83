"""What holds for every SVID, clock and draw."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from livery_agent.schedule import JITTER, MAX_TICK, MIN_TICK, Renewal, draw_jitter, pause, tick

moments = st.timedeltas(timedelta(0), timedelta(days=7300)).map(lambda d: datetime(2020, 1, 1, tzinfo=UTC) + d)
lives = st.timedeltas(timedelta(seconds=1), timedelta(days=3650))
draws = st.floats(0, 1)


@st.composite
def renewals(draw: st.DrawFn) -> Renewal:
    received = draw(moments)
    return Renewal(received, received + draw(lives), draw_jitter(lambda: draw(draws)))


@given(renewals())
def test_renewal_falls_between_45_and_55_percent_of_the_life(renewal: Renewal):
    share = (renewal.at - renewal.received_at) / renewal.lifetime
    assert 0.45 - 1e-6 <= share <= 0.55 + 1e-6


@given(renewals(), st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_what_is_due_stays_due_while_time_goes_on(renewal: Renewal, later: timedelta):
    assert renewal.is_due(renewal.at)
    assert renewal.is_due(renewal.at + later)


@given(renewals())
def test_nothing_expires_before_it_was_due(renewal: Renewal):
    assert renewal.at < renewal.expires_at
    assert not renewal.is_over(renewal.at)


@given(renewals(), st.floats(0, 1))
def test_asking_again_and_again_never_moves_the_renewal(renewal: Renewal, part: float):
    """The jitter belongs to the SVID: however often it is asked before its time, it is not due."""
    asked = renewal.received_at + (renewal.at - renewal.received_at) * part
    assert renewal.is_due(asked) == (asked >= renewal.at)


@given(draws)
def test_a_draw_stays_within_the_jitter(value: float):
    assert -JITTER <= draw_jitter(lambda: value) <= JITTER


def test_a_fleet_that_started_together_spreads_its_renewals_over_a_tenth_of_the_life():
    """10,000 SVIDs of one hour: each tenth of the six-minute window gets its share, so no second sees a herd."""
    chance = random.Random(1).random
    start, hour = datetime(2026, 1, 1, tzinfo=UTC), timedelta(hours=1)
    window = [Renewal(start, start + hour, draw_jitter(chance)).at - start for _ in range(10_000)]
    buckets = [0] * 10
    for at in window:
        buckets[min(int((at - timedelta(minutes=27)) / timedelta(minutes=6) * 10), 9)] += 1
    assert min(buckets) > 800
    assert max(buckets) < 1200


@given(st.lists(renewals(), max_size=5))
def test_a_tick_is_never_longer_than_five_seconds_or_a_twentieth_of_any_life(held: list[Renewal]):
    length = tick(held)
    assert MIN_TICK <= length <= MAX_TICK
    assert all(length <= max(renewal.lifetime / 20, MIN_TICK) for renewal in held)


@given(
    st.integers(0, 10**9),
    st.timedeltas(timedelta(milliseconds=100), timedelta(minutes=10)),
    st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=1)),
)
def test_a_pause_is_positive_and_bounded(failures: int, interval: timedelta, remaining: timedelta | None):
    length = pause(failures, interval, remaining)
    assert timedelta(0) < length <= 12 * interval
    if remaining is not None and remaining > timedelta(seconds=1):
        assert length <= remaining / 10
