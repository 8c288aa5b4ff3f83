"""Work that goes on to its end also when nobody waits for it any more.

Owns: `whole`. Does not own: which work must not be cut short: what would leave something half open, half closed or half
written, or a thread that nobody counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def whole(work: Awaitable[T]) -> T:
    """Do it to its end, and only then be cancelled, however often that is asked for."""
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            # A time-out may follow the first cancellation. (Not `gather`: it would pass that on to the work.)
            with suppress(asyncio.CancelledError):
                await asyncio.wait({doing})
        raise
