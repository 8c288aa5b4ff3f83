"""SQLite as the store's engine: how a connection is set up, and whether a file is fit to be opened.

Owns: pragmas, transactions begun explicitly, the look at a file before it is used. Does not own: schema, statements.

Invariants: a commit is on the disk before it returns (WAL with synchronous=FULL); reading connections cannot write.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from livery_ca.store.errors import corrupt

APPLICATION_ID = 0x4C495652  # "LIVR": tells our file from another program's
BUSY_SECONDS = 5.0
_MAGIC = b"SQLite format 3\x00"


def write_engine(path: Path, busy_seconds: float) -> Engine:
    """The engine of the one writer: a single connection, every transaction takes the write lock at its beginning."""
    return _engine(
        path, ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"), "BEGIN IMMEDIATE", 1, busy_seconds
    )


def read_engine(path: Path, connections: int, busy_seconds: float) -> Engine:
    """The engine of the readers: each transaction sees one moment, and cannot write."""
    return _engine(path, ("query_only=ON",), "BEGIN", connections, busy_seconds)


def _engine(path: Path, pragmas: tuple[str, ...], begin: str, connections: int, busy_seconds: float) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(path, busy_seconds),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
    )

    def set_up(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin_explicitly(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin_explicitly)
    return engine


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    # isolation_level=None: the driver begins nothing by itself. SQLAlchemy's pool hands connections between threads,
    # one at a time.
    return sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def create_private(path: Path) -> None:
    """Make an empty file that only we can read, so that SQLite's own files beside it are private too."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def inspect(path: Path) -> None:
    """Refuse a file that is no database, not ours, or damaged, before anything is written to it."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise corrupt(path, "it does not begin like an SQLite database")


def check(connection: Connection, path: Path) -> None:
    """Refuse another program's database or one that fails SQLite's own check; mark a new one as ours."""
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one()
    if application not in (0, APPLICATION_ID) or (application == 0 and tables):
        raise corrupt(path, "it is another program's SQLite database")
    verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if verdict != "ok":
        raise corrupt(path, str(verdict).splitlines()[0])
    if not application:
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
