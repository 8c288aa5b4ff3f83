"""Who asks while others are being served is served next, together with all who came meanwhile.

Owns: forming groups, and giving each caller its own answers. Does not own: what is done for a group.

Invariants: answers are in the order of what was asked, and nobody gets another's. A caller that goes away while it
waits is left out; one that goes away later changes nothing. What fails for a group fails for all in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

LARGE = 16  # items that are a group by themselves: they gain nothing from company, and would hold it up
MOST = 64  # items in a group of several callers: bounds how long the last of them waits for the first

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Caller(Generic[Item, Answer]):
    items: Sequence[Item]
    answers: asyncio.Future[list[Answer]]


class Groups(Generic[Item, Answer]):
    """Carries out what callers hand over: large batches at once, small ones together, one group of them at a time."""

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[list[Answer]]]) -> None:
        """`work` gives one answer for each item, in order."""
        self._work = work
        self._waiting: deque[_Caller[Item, Answer]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_serving_small = False

    async def carry_out(self, items: Sequence[Item]) -> list[Answer]:
        """The answers to these items; raises what `work` raises."""
        answers: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        caller = _Caller(items, answers)
        if len(items) >= LARGE:
            self._start(self._serve([caller]))
        else:
            self._waiting.append(caller)
            if not self._is_serving_small:
                self._is_serving_small = True
                self._start(self._serve_small())
        return await answers

    async def finish(self) -> None:
        """Wait until nobody is being served and nobody waits."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_small(self) -> None:
        try:
            while self._waiting:
                await self._serve(self._gather())
        finally:
            self._is_serving_small = False

    def _gather(self) -> list[_Caller[Item, Answer]]:
        group, size = [self._waiting.popleft()], 0
        while self._waiting and (size := size + len(group[-1].items)) + len(self._waiting[0].items) <= MOST:
            group.append(self._waiting.popleft())
        return group

    async def _serve(self, group: Sequence[_Caller[Item, Answer]]) -> None:
        present = [caller for caller in group if not caller.answers.done()]
        if not present:
            return
        try:
            answers = iter(await self._work([item for caller in present for item in caller.items]))
            for caller in present:
                own = list(islice(answers, len(caller.items)))
                if not caller.answers.done():
                    caller.answers.set_result(own)
        except Exception as error:  # noqa: BLE001 - handed to those who asked
            for caller in present:
                if not caller.answers.done():
                    caller.answers.set_exception(error)
        finally:
            for caller in present:  # the loop is ending: nobody is left waiting for ever
                caller.answers.cancel()
