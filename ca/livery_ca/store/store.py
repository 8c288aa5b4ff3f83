"""The store as a whole: opening it, its aggregates, closing it.

Owns: the order in which a state file is locked, looked at, brought up to date and used. Does not own: what the
aggregates do.

Invariant: a store that cannot be opened is left exactly as it was found, and the error says why and what to do.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from livery.runtime.clock import Clock
from livery.runtime.files import StateLock, private_directory
from livery_ca.store import changes, sqlite
from livery_ca.store.authorities import AuthorityRows
from livery_ca.store.bundles import Bundles
from livery_ca.store.changes import Changes
from livery_ca.store.database import READERS, Database
from livery_ca.store.entries import Entries
from livery_ca.store.errors import StoreError, StoreUnwritable, corrupt, translate
from livery_ca.store.journal import Journal
from livery_ca.store.leaves import Leaves
from livery_ca.store.migrate import migrate
from livery_ca.store.nodes import Nodes
from livery_ca.store.tokens import Tokens


class Store:
    """Everything the authority remembers. Made by `open`; belongs to the event loop it was opened on."""

    def __init__(self, database: Database, lock: StateLock, feed: Changes, clock: Clock) -> None:
        self._database = database
        self._lock = lock
        self.changes = feed
        self.entries = Entries(database, clock)
        self.nodes = Nodes(database, clock)
        self.tokens = Tokens(database, clock)
        self.bundles = Bundles(database, clock)
        self.authorities = AuthorityRows(database, clock)
        self.journal = Journal(database)
        self.leaves = Leaves(database)

    @classmethod
    async def open(cls, path: Path, *, clock: Clock, busy_seconds: float = sqlite.BUSY_SECONDS) -> Self:
        """Open the SQLite file at `path`, made if it is not there, and hold it alone until `close`.

        Another program that has it open for writing is waited for `busy_seconds`.

        Raises `StateLocked` (another process has it), `StoreCorrupt`, `StoreNewer`, `StoreFull`, `StoreUnwritable`,
        `StoreLocked` or `StoreUnavailable`.
        """
        lock = StateLock(path.with_name(path.name + ".lock"))
        engines = await asyncio.to_thread(_prepare, path, lock, busy_seconds)
        feed = Changes()
        database = Database(path, *engines, feed.committing)
        store = cls(database, lock, feed, clock)
        try:
            feed.attach(database, await database.read(changes.last))
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def fault(self) -> StoreError | None:
        """Why the last write failed, until one succeeds: what a health check reports."""
        return self._database.fault

    async def close(self) -> None:
        """Finish the writes that were handed over and let go of the file."""
        await self._database.close()
        self._lock.release()


def _prepare(path: Path, lock: StateLock, busy_seconds: float) -> tuple[Engine, Engine]:
    """1. private directory  2. lock  3. look at the file  4. check and migrate, in one transaction.

    What fails is taken back: the lock is given up and the file let go of.
    """
    private_directory(path.parent)  # 1
    lock.acquire()  # 2
    with ExitStack() as undo:
        undo.callback(lock.release)
        try:
            sqlite.create_private(path)
            sqlite.inspect(path)  # 3
            writing = sqlite.write_engine(path, busy_seconds)
            undo.callback(writing.dispose)
            with writing.begin() as connection:  # 4
                sqlite.check(connection, path)
                migrate(connection, path)
        except SQLAlchemyError as cause:
            raise translate(cause, path) from cause
        except UnicodeDecodeError as cause:  # SQLite repeats what it found where a name should be
            raise corrupt(path, "its tables cannot be read") from cause
        except OSError as cause:
            raise StoreUnwritable(
                f"could not open {path}", why=str(cause), fix="give this user the right to write it"
            ) from cause
        undo.pop_all()
        return writing, sqlite.read_engine(path, READERS, busy_seconds)
