"""Whether this machine's clock can be believed: held against the stopwatch, and against what was written down before.

Owns: the two comparisons. Does not own: refusing to issue (the pipeline does, behind the last journalled time), nor
mending clocks.

Invariants: the first comparison is made before anything is issued; a step of the clock is seen at the next look, and a
clock that was set right again is believed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from livery_ca.health import Trouble

TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Reading:
    """The wall's time and the stopwatch's, read together."""

    wall: datetime
    monotonic: float


def step(first: Reading, now: Reading) -> timedelta:
    """How far the wall clock has been moved since `first` beyond the time that passed. Negative: back.

    A machine that slept moves it forward: the stopwatch stands still meanwhile.
    """
    return (now.wall - first.wall) - timedelta(seconds=now.monotonic - first.monotonic)


def judge(first: Reading, now: Reading, last_written: datetime | None) -> Trouble | None:
    """What is wrong with the clock: behind what was written (nothing can be issued), or stepped (somebody look)."""
    if last_written is not None and last_written - now.wall > TOLERANCE:
        return Trouble(
            f"the clock shows {now.wall.isoformat()}, but something was issued at {last_written.isoformat()}: "
            "set the clock, nothing is issued until it has caught up",
            failing=True,
        )
    moved = step(first, now)
    if abs(moved) > TOLERANCE:
        return Trouble(f"the clock was moved by {moved.total_seconds():+.0f} s while we ran: compare it with others")
    return None
