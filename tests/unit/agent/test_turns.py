"""Places for many who want the same: bounded in all, and for each."""

from __future__ import annotations

import asyncio
from collections import Counter

from livery_agent.turns import Turns
from tests.fakes.clock import settle


async def test_places_are_bounded_in_all_and_for_each_and_everybody_gets_one():
    turns, now, most, done = Turns(4, 2), Counter[str](), Counter[str](), Counter[str]()

    async def work(whose: str) -> None:
        async with turns.turn(whose):
            now[whose] += 1
            most[whose] = max(most[whose], now[whose])
            most["all"] = max(most["all"], now.total())
            await asyncio.sleep(0)
            now[whose] -= 1
        done[whose] += 1

    await asyncio.gather(*(work(whose) for whose in "a" * 20 + "b" * 20 + "c" * 20))
    assert max(most[whose] for whose in "abc") == 2, "never more for one, although nobody else waits at first"
    assert most["all"] == 4
    assert done == {"a": 20, "b": 20, "c": 20}


async def test_who_gives_up_waiting_leaves_no_place_taken_and_nothing_behind():
    turns, gate = Turns(1, 1), asyncio.Event()

    async def work(whose: str) -> None:
        async with turns.turn(whose):
            await gate.wait()

    tasks = [asyncio.create_task(work(whose)) for whose in "aab"]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
    gate.set()
    async with asyncio.timeout(5):
        await work("b")
    assert len(turns._shares) == 0
