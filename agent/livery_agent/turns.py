"""Who is served next when many want the same few places: so many at a time in all, and fewer for one of them alone.

Owns: the waiting. Does not own: what is done in a place, or how long somebody waits for one (that is the caller's).

Invariant: whoever asks for more than his share waits in a line of his own, so that the others find a place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Share:
    """The places of one, and how many have one or wait for it."""

    places: asyncio.Semaphore
    wanted: int = 0


class Turns:
    """Places for `total` at a time, `each` of them for the same one at most."""

    def __init__(self, total: int, each: int) -> None:
        self._places = asyncio.Semaphore(total)
        self._each = each
        self._shares: dict[Hashable, _Share] = {}

    @asynccontextmanager
    async def turn(self, whose: Hashable) -> AsyncIterator[None]:
        """Wait for a place, and have it for the length of the block."""
        share = self._shares.setdefault(whose, _Share(asyncio.Semaphore(self._each)))
        share.wanted += 1
        try:
            async with share.places, self._places:
                yield
        finally:
            share.wanted -= 1
            if not share.wanted:
                del self._shares[whose]
