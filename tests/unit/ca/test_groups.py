"""Groups: who waits at the same time is served together, and gets its own answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from livery_ca.issuance import groups
from livery_ca.issuance.groups import Groups


class Work:
    """Doubles numbers, when it is let; remembers each group."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.let = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return [2 * item for item in items]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def grouped(work: Work) -> Groups[int, int]:
    return Groups(work)


async def asked(grouped: Groups[int, int], *batches: Sequence[int]) -> list[asyncio.Task[list[int]]]:
    """Callers that have asked, one after the other."""
    calls = []
    for batch in batches:
        calls.append(asyncio.create_task(grouped.carry_out(batch)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return calls


async def test_one_who_comes_alone_is_served_at_once(work: Work, grouped: Groups[int, int]):
    work.let.set()
    assert await grouped.carry_out([1, 2]) == [2, 4]
    assert work.groups == [[1, 2]]


async def test_those_who_wait_are_served_together_and_each_gets_its_own(work: Work, grouped: Groups[int, int]):
    calls = await asked(grouped, [0], [7, 8], [], [9])
    work.let.set()
    assert await asyncio.gather(*calls) == [[0], [14, 16], [], [18]]
    assert work.groups == [[0], [7, 8, 9]]


async def test_a_group_of_several_is_bounded_and_one_callers_batch_never_torn(
    work: Work, grouped: Groups[int, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(groups, "MOST", 4)
    calls = await asked(grouped, [0], [1, 2, 3], [4, 5], list(range(9)), [6])
    work.let.set()
    await asyncio.gather(*calls)
    assert work.groups[1:] == [[1, 2, 3], [4, 5], list(range(9)), [6]]


async def test_a_large_batch_holds_nobody_up_and_is_not_held_up(work: Work, grouped: Groups[int, int]):
    large = list(range(groups.LARGE))
    calls = await asked(grouped, large, [1], [2], large)
    assert work.groups == [large, [1], large]
    work.let.set()
    await asyncio.gather(*calls)
    assert work.groups[3:] == [[2]]


async def test_who_goes_away_while_waiting_is_left_out_and_who_goes_later_changes_nothing(
    work: Work, grouped: Groups[int, int]
):
    first, waiting, last = await asked(grouped, [0], [5], [6])
    first.cancel()
    waiting.cancel()
    await asyncio.gather(first, waiting, return_exceptions=True)
    work.let.set()
    assert await last == [12]
    assert work.groups == [[0], [6]]


async def test_nothing_is_carried_out_for_a_group_that_everybody_left(work: Work, grouped: Groups[int, int]):
    first, *left = await asked(grouped, [0], [5], [6])
    for call in left:
        call.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    work.let.set()
    await first
    await grouped.finish()
    assert work.groups == [[0]]
    assert await grouped.carry_out([1]) == [2]


async def test_what_fails_fails_for_all_of_its_group_and_for_no_other(work: Work, grouped: Groups[int, int]):
    calls = await asked(grouped, [0])
    work.error = ValueError("away")
    work.let.set()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, ValueError)
    work.error = None
    assert await grouped.carry_out([1]) == [2]


async def test_finishing_waits_for_those_who_wait_too(work: Work, grouped: Groups[int, int]):
    calls = await asked(grouped, [0], [1], [2])
    finishing = asyncio.create_task(grouped.finish())
    await asyncio.sleep(0)
    assert not finishing.done()
    work.let.set()
    await finishing
    assert all(call.done() for call in calls)
    assert len(work.groups) == 2


async def test_a_group_that_is_cut_off_leaves_nobody_waiting(work: Work, grouped: Groups[int, int]):
    (call,) = await asked(grouped, [1])
    for task in tuple(grouped._tasks):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 10)
