"""The threads that compute, so that the event loop breathes.

Owns: one thread for building and verifying, one for the key store, and the portions in which they are fed. Does not
own: the work.

Invariant: whatever the size of a batch, at most `PORTION` items are computed before somebody else's turn comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

PORTION = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """One thread for CPU work, and one for signing: a key store that waits holds up nobody's building."""

    def __init__(self) -> None:
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="livery-issuance")
        self._signing = ThreadPoolExecutor(1, thread_name_prefix="livery-signer")

    async def compute(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`work` of each item, in order."""

        def portion(some: Sequence[Item]) -> list[Result]:
            return [work(item) for item in some]

        return await _in_portions(self._computing, portion, items)

    async def sign(self, work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """`work` of each portion, on the key store's thread."""
        return await _in_portions(self._signing, work, items)

    async def close(self) -> None:
        """Finish and stop."""
        for pool in (self._computing, self._signing):
            await asyncio.to_thread(pool.shutdown)


async def _in_portions(
    pool: ThreadPoolExecutor, work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]
) -> list[Result]:
    loop = asyncio.get_running_loop()
    results: list[Result] = []
    for start in range(0, len(items), PORTION):
        # Each portion queues anew, behind whoever came meanwhile.
        results += await loop.run_in_executor(pool, work, items[start : start + PORTION])
    return results
