"""The change feed: what was changed, in order, and a way to wait for more.

Owns: the `changes` table and the in-process wake-up. Does not own: who follows it, or what a change means to them.

Invariants: a change is appended in the transaction that makes it, so a follower sees it exactly when it is true;
sequence numbers grow and are never reused. What is pruned is said: `since` never skips silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from livery_ca.store import schema
from livery_ca.store.database import Database
from livery_ca.store.rows import decodes

_TOUCHED = "livery_changed"


class ChangeKind(StrEnum):
    """What kind of thing was changed."""

    ENTRY = "entry"  # key: the entry's ID
    NODE = "node"  # key: the node's SPIFFE ID
    TOKEN = "token"  # noqa: S105 - a kind, not a secret. Key: the redacted token
    BUNDLE = "bundle"  # key: the trust domain's name
    AUTHORITY = "authority"  # key: the authority's ID


@dataclass(frozen=True, slots=True)
class Change:
    """One change; what it was changed to is read from the aggregate."""

    seq: int
    kind: ChangeKind
    key: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Since:
    """Changes after a sequence number. `complete` is false when some of them were pruned already: read all anew."""

    changes: tuple[Change, ...]
    complete: bool


def append(connection: Connection, kind: ChangeKind, key: str, at: datetime) -> None:
    """Add a change to the transaction under way."""
    connection.execute(insert(schema.changes).values(kind=kind.value, key=key, at=at))
    connection.info[_TOUCHED] = True


class Changes:
    """The feed, for those who follow it."""

    def __init__(self) -> None:
        self._database: Database | None = None
        self._latest = 0
        self._moved = asyncio.Event()

    def attach(self, database: Database, latest: int) -> None:
        """Give the feed its database and where it stands; called once, when the store opens."""
        self._database = database
        self._latest = latest

    @property
    def latest(self) -> int:
        """The newest committed sequence number."""
        return self._latest

    async def wait(self, after: int) -> int:
        """Return the newest sequence number as soon as it is beyond `after`."""
        while self._latest <= after:
            await self._moved.wait()
        return self._latest

    async def since(self, after: int, limit: int = 1000) -> Since:
        """At most `limit` changes after `after`, oldest first."""
        return await self._db.read(lambda connection: _since(connection, after, limit))

    async def prune(self, before: datetime) -> int:
        """Forget changes older than `before`, but never the newest one; returns how many."""
        table = schema.changes
        newest = select(func.max(table.c.seq)).scalar_subquery()
        statement = delete(table).where(table.c.at < before, table.c.seq < newest)
        return await self._db.write(lambda connection: connection.execute(statement).rowcount)

    def committing(self, connection: Connection) -> Callable[[], None] | None:
        """Asked at the end of each transaction: what to do on the loop once it is committed."""
        if not connection.info.pop(_TOUCHED, False):
            return None
        latest = last(connection)
        return lambda: self._advance(latest)

    def _advance(self, latest: int) -> None:
        self._latest = max(self._latest, latest)
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def _db(self) -> Database:
        assert self._database is not None, "the feed is attached when the store opens"
        return self._database


def last(connection: Connection) -> int:
    """The newest sequence number, 0 when there is none."""
    greatest: int | None = connection.execute(select(func.max(schema.changes.c.seq))).scalar_one()
    return greatest or 0


@decodes
def _change(row: Row[Any]) -> Change:
    return Change(row.seq, ChangeKind(row.kind), row.key, row.at)


def _since(connection: Connection, after: int, limit: int) -> Since:
    table = schema.changes
    rows = connection.execute(select(table).where(table.c.seq > after).order_by(table.c.seq).limit(limit)).all()
    oldest = connection.execute(select(func.min(table.c.seq))).scalar_one()
    changes = tuple(_change(row) for row in rows)
    return Since(changes, complete=oldest is None or oldest <= after + 1)
