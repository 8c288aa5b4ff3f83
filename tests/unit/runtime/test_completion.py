"""Work that must not be cut short is not, however often whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from livery.runtime.completion import whole
from tests.fakes.clock import settle


async def test_work_is_done_before_its_waiter_is_cancelled_even_if_that_is_asked_for_again():
    """A time-out may end while an earlier cancellation still waits for the work."""
    may_end, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        done.set()

    waiter = asyncio.create_task(whole(work()))
    for _ in range(3):
        await settle()
        waiter.cancel()
    await settle()
    assert not waiter.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert done.is_set()


async def test_what_the_work_brings_or_raises_reaches_its_waiter():
    async def work(number: int) -> int:
        return 1 // number

    assert await whole(work(1)) == 1
    with pytest.raises(ZeroDivisionError):
        await whole(work(0))
