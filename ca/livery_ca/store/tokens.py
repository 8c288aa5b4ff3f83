"""Join tokens in the store: made once, bound to the first key that uses them.

Owns: the rows and the binding. Does not own: attestation. Invariant: of any number of keys that use a token, exactly
one is admitted, and that one may repeat until the token ends.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from livery.runtime.clock import Clock
from livery_ca.model import Entry, JoinToken
from livery_ca.store import changes, entries, schema
from livery_ca.store.changes import ChangeKind
from livery_ca.store.database import Database
from livery_ca.store.errors import TokenExpired, TokenTaken, TokenUnknown, TokenUsed
from livery_ca.store.writes import SpendToken

_TABLE = schema.join_tokens


class Tokens:
    """The join tokens, for those who make them and look them up."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, token: JoinToken, alias: Entry | None = None) -> None:
        """Add a token and, in the same transaction, the entry that gives its agent an alias.

        Raises `TokenTaken`, or what creating the entry raises; then neither exists.
        """
        at = self._clock.now()
        await self._database.write(lambda connection: _create(connection, token, alias, at))

    async def get(self, value: str) -> JoinToken | None:
        """The token; to use it is the `SpendToken` write of an issuance record."""
        return await self._database.read(lambda connection: _find(connection, value))

    async def prune(self, at: datetime) -> int:
        """Forget the tokens that have ended by `at`; returns how many."""
        statement = delete(_TABLE).where(_TABLE.c.expires_at <= at)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def spend(connection: Connection, spending: SpendToken) -> None:
    """Bind the token to the key, in the transaction under way. Raises a `TokenRefused`."""
    token = _find(connection, spending.token)
    if token is None:
        raise TokenUnknown("join token does not exist or has already been used", fix="create a new join token")
    if token.expired(spending.at):
        raise TokenExpired("join token expired", why=f"it ended at {token.expires_at}", fix="create a new join token")
    if not token.admits(spending.key_hash):
        why = "it belongs to the first key that used it"
        raise TokenUsed("join token does not exist or has already been used", why=why, fix="create a new join token")
    if token.bound_key is None:
        bind = update(_TABLE).where(_TABLE.c.value == spending.token).values(bound_key=spending.key_hash)
        connection.execute(bind)
        changes.append(connection, ChangeKind.TOKEN, token.redacted, spending.at)


def _create(connection: Connection, token: JoinToken, alias: Entry | None, at: datetime) -> None:
    try:
        connection.execute(
            insert(_TABLE).values(value=token.value, expires_at=token.expires_at, bound_key=token.bound_key)
        )
    except IntegrityError:
        # The driver's error is not kept as the cause: it shows the statement's values, and one of them is the secret.
        raise TokenTaken("failed to create token", why="it exists already", fix="let livery choose one") from None
    if alias is not None:
        entries.add(connection, alias, at)
    changes.append(connection, ChangeKind.TOKEN, token.redacted, at)


def _find(connection: Connection, value: str) -> JoinToken | None:
    row = connection.execute(select(_TABLE).where(_TABLE.c.value == value)).first()
    return None if row is None else JoinToken(row.value, row.expires_at, row.bound_key)
