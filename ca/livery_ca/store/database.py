"""The database as the aggregates see it: `read` and `write`, each given a function of a connection.

Owns: the two engines, the writer, the readers' threads, the translation of driver errors. Does not own: statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from livery_ca.store.errors import StoreClosed, StoreError, corrupt, translate
from livery_ca.store.rows import UnreadableRow
from livery_ca.store.writer import Writer

Result = TypeVar("Result")
Committed = Callable[[Connection], Callable[[], None] | None]

READERS = 4


class Database:
    """Reads on a few threads, writes on one."""

    def __init__(self, path: Path, writing: Engine, reading: Engine, committed: Committed) -> None:
        self._path = path
        self._engines = (writing, reading)
        self._writer = Writer(writing, path, committed)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="livery-store-reader")
        self._closed = False

    @property
    def fault(self) -> StoreError | None:
        """Why the last commit failed, until one succeeds."""
        return self._writer.fault

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """The result of `work` on one moment of the database."""
        if self._closed:
            raise StoreClosed("the store is closed", fix="the process is stopping; try again once it is back")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        try:
            with self._engines[1].begin() as connection:
                return work(connection)
        except SQLAlchemyError as cause:
            raise translate(cause, self._path) from cause
        except UnreadableRow as cause:
            raise corrupt(self._path, str(cause)) from cause

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """The result of `work`, once it is committed; `work` runs in its own savepoint of a shared transaction."""
        try:
            return await self._writer.submit(work)
        except UnreadableRow as cause:
            raise corrupt(self._path, str(cause)) from cause

    async def close(self) -> None:
        """Finish what was begun and let go of the file."""
        self._closed = True
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        for engine in self._engines:
            engine.dispose()
