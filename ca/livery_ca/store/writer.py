"""The one thread that writes, committing in groups.

Owns: the queue of writes, the transaction around a group, a savepoint around each write in it. Does not own: what is
written.

Invariants: a write's caller hears of it only after the commit that holds it; a write that fails takes none of its group
with it; a commit that fails fails its whole group and leaves nothing of it behind. A write that was handed over is
carried out even if its caller no longer waits.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from livery_ca.store.errors import StoreClosed, StoreError, StoreUnavailable, translate
from livery_ca.store.savepoint import is_doubtful, savepoint

Result = TypeVar("Result")
Work = Callable[[Connection], Result]

_REPORT = "this is a fault of ours: report it with the log"
MAX_GROUP = 256  # writes per commit: bounds how long a commit, and so everybody in it, takes


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Carries out writes in the order they were handed over. Belongs to the event loop it was made on."""

    def __init__(
        self, engine: Engine, path: Path, committed: Callable[[Connection], Callable[[], None] | None]
    ) -> None:
        """`committed` is asked last in each transaction; what it returns is called on the loop after the commit."""
        self._engine = engine
        self._path = path
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self.fault: StoreError | None = None  # why the last group failed; None once one succeeds
        self._thread = threading.Thread(target=self._run, name="livery-store-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Work[Result]) -> Result:
        """Carry out `work` in a transaction and return its result once that is durable."""
        if self._closed:
            raise StoreClosed("the store is closed", fix="the process is stopping; try again once it is back")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put(_Job(work, future))
        return await future

    async def close(self) -> None:
        """Finish what was handed over, then stop."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, ended = self._gather(first)
            after = self._commit(group)
            with suppress(RuntimeError):  # the loop was closed, as when the process is cut off: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, group, after)
            if ended:
                return

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
        return group, False

    def _commit(self, group: list[_Job]) -> Callable[[], None] | None:
        try:
            with self._engine.begin() as connection:
                for job in group:
                    _attempt(connection, job)
                after = self._committed(connection)
        except SQLAlchemyError as cause:
            self._fail(group, translate(cause, self._path), cause)
            return None
        except Exception as cause:  # noqa: BLE001 - the boundary of a group: were this thread to end, all writes would hang
            self._fail(group, StoreUnavailable("the store failed", why=type(cause).__name__, fix=_REPORT), cause)
            return None
        self.fault = None
        return after

    def _fail(self, group: list[_Job], error: StoreError, cause: BaseException) -> None:
        error.__cause__ = cause
        self.fault = error
        for job in group:
            job.error = error


def _attempt(connection: Connection, job: _Job) -> None:
    """One write in its savepoint. A database that fails (not a constraint) fails the group: its state is in doubt."""
    try:
        with savepoint(connection):
            job.result = job.work(connection)
    except Exception as error:  # the boundary of a task: its caller gets it, the writer lives on
        if is_doubtful(error):
            raise
        job.error = error


def _resolve(group: list[_Job], after: Callable[[], None] | None) -> None:
    if after is not None:
        after()
    for job in group:
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
