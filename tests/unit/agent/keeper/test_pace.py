"""When the keeper's chores are tried, and how long there is nothing to do between two looks."""

from __future__ import annotations

from datetime import timedelta

from livery_agent.inspection.status import Status
from livery_agent.keeper.pace import BREATH, Chore, Pace
from livery_agent.schedule import tick
from tests.fakes.clock import FakeClock

INTERVAL = timedelta(seconds=5)


def pace(clock: FakeClock) -> Pace:
    return Pace(Status(clock.now()), clock, lambda: 0.5, INTERVAL)


def test_with_every_pause_over_the_nap_is_a_tick_of_the_lives():
    """A step may take longer than the interval: when it ends, no chore has a pause left."""
    clock = FakeClock()
    assert pace(clock).nap((Chore("sync"), Chore("sign")), ()) == tick(()).total_seconds()


def test_a_pause_that_ends_sooner_shortens_the_nap():
    clock = FakeClock()
    chores = (Chore("sync", clock.monotonic() + 0.5), Chore("sign", clock.monotonic() + 3.0))
    assert pace(clock).nap(chores, ()) == 0.5


def test_a_pause_about_to_end_still_gives_others_room():
    clock = FakeClock()
    assert pace(clock).nap((Chore("sync", clock.monotonic() + BREATH / 10),), ()) == BREATH
