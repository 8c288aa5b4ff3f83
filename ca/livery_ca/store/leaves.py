"""The leaves of the issuance log: one hash per intent, numbered from 0 without a gap (RFC 6962 2.1).

Owns: the numbering and the rows. Does not own: the tree above them (`ledger.merkle`). Leaves are never deleted, however
old: a tree that forgets is no log.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, insert, select

from livery_ca.store import schema
from livery_ca.store.database import Database

_TABLE = schema.log_leaves
_GREATEST = select(func.max(_TABLE.c.idx))
_INSERT = insert(_TABLE)


class Leaves:
    """The leaves, for those who build and audit the tree."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def size(self) -> int:
        """How many leaves the log has."""
        return await self._database.read(size)

    async def hashes(self, start: int, end: int) -> tuple[bytes, ...]:
        """The leaf hashes from `start` up to, not including, `end`."""
        query = select(_TABLE.c.leaf_hash).where(_TABLE.c.idx >= start, _TABLE.c.idx < end).order_by(_TABLE.c.idx)
        return tuple(await self._database.read(lambda connection: connection.execute(query).scalars().all()))


def size(connection: Connection) -> int:
    """How many leaves the log has, as of the transaction under way."""
    # The numbers have no gap, so the greatest tells the size; counting would read the log through.
    greatest: int | None = connection.execute(_GREATEST).scalar_one()
    return 0 if greatest is None else greatest + 1


def append(connection: Connection, hashes: Sequence[bytes]) -> int:
    """Append leaves in the transaction under way; returns the number of the first."""
    first = size(connection)
    connection.execute(_INSERT, [{"idx": first + i, "leaf_hash": h} for i, h in enumerate(hashes)])
    return first
