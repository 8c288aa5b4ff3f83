"""When what is renewed, and how long to wait after a failure: pure functions of values and a time.

Owns: the half-life rule with its jitter, the length of a tick, the order of work and the back-off.
Does not own: clocks, waiting or the work itself (`keeper`).

Invariants:
- The jitter belongs to the SVID: drawn once, when it is received, and kept with it. Drawing at every tick would pull
  every renewal to the early edge.
- A lifetime counts from receipt, not from `notBefore`, so the CA's backdating does not shorten it.
- Being due is a question about wall time asked on every tick. There is no long sleep to a renewal: monotonic time
  stands still while a machine is suspended, and its certificates age on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

JITTER = 0.10  # of the half life, to either side
MAX_TICK = timedelta(seconds=5)
MIN_TICK = timedelta(milliseconds=100)
TICKS_PER_LIFE = 20

BACKOFF_FACTOR = 1.5
MAX_BACKOFF_INTERVALS = 12
RETRIES_PER_REMAINING_LIFE = 10

# Further back than any slewing clock goes between two looks at it: somebody set it.
CLOCK_SET_BACK = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Renewal:
    """The times of one SVID as this node sees them: received, ending, and (by its own jitter) due for renewal."""

    received_at: datetime
    expires_at: datetime
    jitter: float = 0.0  # -0.1 … 0.1

    @property
    def lifetime(self) -> timedelta:
        """How long the SVID lives from its receipt; never negative."""
        return max(self.expires_at - self.received_at, timedelta(0))

    @property
    def at(self) -> datetime:
        """Half the life after receipt, give or take a tenth of that half."""
        return self.received_at + self.lifetime / 2 * (1 + self.jitter)

    def is_due(self, now: datetime) -> bool:
        """Whether it is time; also when the clock was set back to before receipt: no plan made by it holds then."""
        return now >= self.at or now < self.received_at - CLOCK_SET_BACK

    def is_over(self, now: datetime) -> bool:
        """Whether the SVID has expired."""
        return now >= self.expires_at


def draw_jitter(random: Callable[[], float]) -> float:
    """One draw from -JITTER … JITTER; `random` yields 0 … 1 (`random.random`)."""
    return (2 * random() - 1) * JITTER


class Renewable(Protocol):
    """Something with the times of an SVID, or without because it has none yet."""

    @property
    def renewal(self) -> Renewal | None:
        """The times of the SVID held, if one is."""
        ...

    @property
    def is_stale(self) -> bool:
        """Whether a new SVID is wanted whatever the time."""
        ...


R = TypeVar("R", bound=Renewable)


def due(items: Iterable[R], now: datetime) -> tuple[R, ...]:
    """Those without an SVID or with one to renew, the nearest to its end first; having none counts as ended."""
    waiting = [item for item in items if item.renewal is None or item.is_stale or item.renewal.is_due(now)]
    return tuple(
        sorted(waiting, key=lambda item: item.renewal.expires_at.timestamp() if item.renewal else float("-inf"))
    )


def most_urgent(items: Iterable[Renewable], now: datetime) -> Renewal | None:
    """Of the SVIDs these items still have, the one that ends first; None if they have none that lives."""
    alive = (item.renewal for item in items if item.renewal is not None and not item.renewal.is_over(now))
    return min(alive, key=lambda renewal: renewal.expires_at, default=None)


def tick(renewals: Iterable[Renewal]) -> timedelta:
    """How often to look: a twentieth of the shortest life held, five seconds at most."""
    shortest = min((renewal.lifetime for renewal in renewals), default=MAX_TICK * TICKS_PER_LIFE)
    return max(min(MAX_TICK, shortest / TICKS_PER_LIFE), MIN_TICK)


def pause(failures: int, interval: timedelta, remaining: timedelta | None = None) -> timedelta:
    """How long to wait after so many failures in a row; the plain interval after none.

    Grows by half each time, to twelve intervals at most. With `remaining` (the shortest life left of what the failing
    work would renew) never more than a tenth of it, so that an SVID gets its attempts however long the outage was; and
    never less than an interval once that life is over, when haste helps nobody and the CA has a herd to feed.
    """
    grown = interval * min(BACKOFF_FACTOR ** min(failures, 64), MAX_BACKOFF_INTERVALS)
    if remaining is None or remaining <= timedelta(0):
        return grown
    return min(grown, max(remaining / RETRIES_PER_REMAINING_LIFE, MIN_TICK))
