"""Batches of entries: in order, and nothing is begun that nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from livery_ca.doors.entry import _TOGETHER, _batch


async def test_a_batch_that_is_given_up_has_begun_no_more_than_its_present_group() -> None:
    begun: list[int] = []
    held = asyncio.Event()

    async def item(number: int) -> int:
        begun.append(number)
        if number >= _TOGETHER:
            await held.wait()
        return number

    made: list[int] = []

    def items() -> Iterator[Coroutine[Any, Any, int]]:
        for number in range(5 * _TOGETHER):
            made.append(number)
            yield item(number)

    call = asyncio.create_task(_batch(items()))
    while len(begun) < 2 * _TOGETHER:
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert made == begun == list(range(2 * _TOGETHER)), "what is made and not awaited is work for nothing"
    held.set()
    assert await _batch(item(number) for number in range(3 * _TOGETHER)) == list(range(3 * _TOGETHER))
