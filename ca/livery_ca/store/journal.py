"""The issuance journal: every intent before it is signed, and its outcome.

Owns: the rows of intents and of issued JWTs, and the one transaction in which an outcome and its extra writes stand.
Does not own: the steps between (`issuance`).

Invariants: no serial stands twice. An intent is settled at most once. An intent's outcome `issued` and the extra writes
that go with it are both there or neither is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from livery.errors import LiveryError
from livery.identity import SpiffeId
from livery_ca.model import Intent, JwtRecord, Listing, Outcome, Page, Settled
from livery_ca.store import leaves, nodes, schema, tokens
from livery_ca.store.database import Database
from livery_ca.store.errors import JournalConflict, StoreError
from livery_ca.store.rows import decodes
from livery_ca.store.savepoint import is_doubtful, savepoint
from livery_ca.store.writes import AttestNode, RefuseKnown, RenewNode, SpendToken, Write

_TABLE = schema.intents
_FIRST = Page()
_INSERT = insert(_TABLE)
# One prepared statement for a whole group: the outcome of an intent is written only while it has none.
_SETTLE = (
    update(_TABLE)
    .where(_TABLE.c.idx == bindparam("at_index"), _TABLE.c.outcome.is_(None))
    .values({name: bindparam(name) for name in ("outcome", "settled_at", "reason", "signature")})
)
PRUNED_AT_ONCE = 2000  # rows per transaction
_AT_START = "the process ended before the outcome was recorded"


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome to be recorded for the intent at `index` of the log, with what must be written together with it."""

    index: int
    outcome: Outcome
    at: datetime
    reason: str = ""
    signature: bytes | None = None
    writes: tuple[Write, ...] = ()


class Journal:
    """The journal, for the pipeline and for those who look into it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, intents: Sequence[Intent], before_commit: Callable[[], None] = lambda: None) -> list[Intent]:
        """Write intents down, in order, and number them in the log. Raises `JournalConflict` if a serial exists.

        `before_commit` is called in the transaction, when all is written and nothing durable.
        """
        return await self._database.write(lambda connection: _append(connection, intents, before_commit))

    async def settle(
        self, settlements: Sequence[Settlement], before_commit: Callable[[], None] = lambda: None
    ) -> list[LiveryError | None]:
        """Record outcomes. Where the extra writes are refused, the outcome is `withheld` and the refusal returned."""
        return await self._database.write(lambda connection: _settle(connection, settlements, before_commit))

    async def abandon_open(self, at: datetime) -> list[Intent]:
        """Settle every open intent as `unknown`; returns them. For the start only, when no pipeline is running."""
        return await self._database.write(lambda connection: _abandon_open(connection, at))

    async def get(self, serial: int) -> Settled | None:
        """The intent with this serial, and its outcome."""
        query = select(_TABLE).where(_TABLE.c.serial == _hex(serial))
        found = await self._database.read(lambda connection: list(map(_settled, connection.execute(query))))
        return found[0] if found else None

    async def list(self, outcome: Outcome | None = None, page: Page = _FIRST) -> Listing[Settled]:
        """Intents in the order of the log, all or those of one outcome. A page's `after` is a log index plus one."""
        query = select(_TABLE).where(_TABLE.c.idx >= page.after).order_by(_TABLE.c.idx)
        if outcome is not None:
            query = query.where(_TABLE.c.outcome == outcome.value)
        if page.size > 0:
            query = query.limit(page.size)
        items = await self._database.read(lambda connection: tuple(map(_settled, connection.execute(query))))
        return Listing(items, items[-1].intent.index + 1 if items else None)

    async def unsettled_counts(self) -> dict[Outcome | None, int]:
        """How many intents are open (None), failed, withheld and unknown; the issued ones are not counted."""
        return await self._database.read(_unsettled_counts)

    async def last_time(self) -> datetime | None:
        """When the newest intent was journalled."""
        query = select(_TABLE.c.journalled_at).order_by(_TABLE.c.idx.desc()).limit(1)
        return await self._database.read(lambda connection: connection.execute(query).scalar_one_or_none())

    async def record_jwt(self, record: JwtRecord) -> None:
        """Keep the record of a JWT-SVID."""
        await self._database.write(lambda connection: _record_jwt(connection, record))

    async def prune(self, ended_before: datetime) -> int:
        """Forget settled intents and JWT records that ended before; their leaves stay in the log. Returns how many.

        In portions, so that issuing goes on meanwhile.
        """
        forgotten = 0
        for prune in (_prune_intents, _prune_tokens):
            portion = partial(prune, ended_before=ended_before)
            while count := await self._database.write(portion):
                forgotten += count
        return forgotten


def _append(connection: Connection, intents: Sequence[Intent], before_commit: Callable[[], None]) -> list[Intent]:
    if not intents:
        return []
    first = leaves.append(connection, [intent.leaf_hash for intent in intents])
    numbered = [replace(intent, index=first + i) for i, intent in enumerate(intents)]
    try:
        connection.execute(_INSERT, [_columns(intent) for intent in numbered])
    except IntegrityError as cause:
        why = "a serial number exists already; the source of random numbers is broken"
        raise JournalConflict("the journal refused an intent", why=why, fix="do not issue from this machine") from cause
    before_commit()
    return numbered


def _settle(
    connection: Connection, settlements: Sequence[Settlement], before_commit: Callable[[], None]
) -> list[LiveryError | None]:
    refusals: list[LiveryError | None] = []
    final: list[Settlement] = []
    for settlement in settlements:
        refusal = _extras(connection, settlement)
        if refusal is not None:
            settlement = replace(settlement, outcome=Outcome.WITHHELD, reason=str(refusal))  # noqa: PLW2901
        refusals.append(refusal)
        final.append(settlement)
    _write_outcomes(connection, final)
    before_commit()
    return refusals


def _extras(connection: Connection, settlement: Settlement) -> LiveryError | None:
    """Carry out the extra writes, all or none of them; returns why they were refused."""
    if not settlement.writes:
        return None
    try:
        with savepoint(connection):
            for write in settlement.writes:
                _apply(connection, write, settlement.at)
    except LiveryError as refusal:
        return refusal
    except Exception as fault:  # the item's own fault, of whatever type: its group is not to suffer
        if is_doubtful(fault):
            raise
        broken = StoreError("the record of a certificate could not be written", why=type(fault).__name__)
        broken.__cause__ = fault
        return broken
    return None


def _apply(connection: Connection, write: Write, at: datetime) -> None:
    match write:
        case SpendToken():
            tokens.spend(connection, write)
        case RefuseKnown():
            nodes.refuse_known(connection, write)
        case AttestNode():
            nodes.attest(connection, write.node, at)
        case RenewNode():
            nodes.renew(connection, write, at)


def _write_outcomes(connection: Connection, settlements: Sequence[Settlement]) -> None:
    rows = [
        {
            "at_index": settlement.index,
            "outcome": settlement.outcome.value,
            "settled_at": settlement.at,
            "reason": settlement.reason,
            "signature": settlement.signature,
        }
        for settlement in settlements
    ]
    if rows and connection.execute(_SETTLE, rows).rowcount != len(rows):
        raise JournalConflict("the journal refused an outcome", why="an intent of the group is not open")


def _abandon_open(connection: Connection, at: datetime) -> list[Intent]:
    still_open = _TABLE.c.outcome.is_(None)
    rows = connection.execute(select(_TABLE).where(still_open).order_by(_TABLE.c.idx)).all()
    values = {"outcome": Outcome.UNKNOWN.value, "settled_at": at, "reason": _AT_START}
    connection.execute(update(_TABLE).where(still_open).values(values))
    return [_settled(row).intent for row in rows]


def _unsettled_counts(connection: Connection) -> dict[Outcome | None, int]:
    kept = [Outcome.FAILED, Outcome.WITHHELD, Outcome.UNKNOWN]
    counts: dict[Outcome | None, int] = {None: 0, **dict.fromkeys(kept, 0)}
    open_ones = select(func.count()).select_from(_TABLE).where(_TABLE.c.outcome.is_(None))
    counts[None] = connection.execute(open_ones).scalar_one()
    query = (
        select(_TABLE.c.outcome, func.count())
        .where(_TABLE.c.outcome != Outcome.ISSUED.value)
        .group_by(_TABLE.c.outcome)
    )
    for outcome, count in connection.execute(query):
        counts[Outcome(outcome)] = count
    return counts


def _record_jwt(connection: Connection, record: JwtRecord) -> None:
    adding = insert(schema.jwt_records).values(
        token_hash=record.token_hash,
        spiffe_id=str(record.spiffe_id),
        audience=json.dumps(record.audience),
        authority_id=record.authority_id,
        asked_by=record.asked_by,
        issued_at=record.issued_at,
        expires_at=record.expires_at,
        entry_id=record.entry_id,
        authorized_by=record.authorized_by,
    )
    # RSA signs the same claims the same way: whoever asks for the same within a second gets the very token on record.
    with suppress(IntegrityError), savepoint(connection):
        connection.execute(adding)


def _prune_intents(connection: Connection, ended_before: datetime) -> int:
    # The newest intent stays, whatever its age: its time is what the clock is held against.
    newest = select(func.max(_TABLE.c.idx)).scalar_subquery()
    ended = (_TABLE.c.not_after < ended_before, _TABLE.c.outcome.is_not(None), _TABLE.c.idx < newest)
    # In the order of their ends: so the database goes by that index, and not through the whole journal.
    portion = select(_TABLE.c.idx).where(*ended).order_by(_TABLE.c.not_after).limit(PRUNED_AT_ONCE)
    return connection.execute(delete(_TABLE).where(_TABLE.c.idx.in_(portion))).rowcount


def _prune_tokens(connection: Connection, ended_before: datetime) -> int:
    table = schema.jwt_records
    portion = select(table.c.row_id).where(table.c.expires_at < ended_before).limit(PRUNED_AT_ONCE)
    return connection.execute(delete(table).where(table.c.row_id.in_(portion))).rowcount


def _columns(intent: Intent) -> dict[str, Any]:
    return {
        "idx": intent.index,
        "serial": _hex(intent.serial),
        "profile": intent.profile,
        "spiffe_id": str(intent.spiffe_id),
        "authority_id": intent.authority_id,
        "key_hash": intent.key_hash,
        "not_before": intent.not_before,
        "not_after": intent.not_after,
        "tbs": intent.tbs,
        "leaf_hash": intent.leaf_hash,
        "asked_by": intent.asked_by,
        "journalled_at": intent.journalled_at,
        "entry_id": intent.entry_id,
        "authorized_by": intent.authorized_by,
    }


@decodes
def _settled(row: Row[Any]) -> Settled:
    intent = Intent(
        serial=int(row.serial, 16),
        profile=row.profile,
        spiffe_id=SpiffeId.parse(row.spiffe_id),
        authority_id=row.authority_id,
        key_hash=row.key_hash,
        not_before=row.not_before,
        not_after=row.not_after,
        tbs=row.tbs,
        leaf_hash=row.leaf_hash,
        asked_by=row.asked_by,
        journalled_at=row.journalled_at,
        entry_id=row.entry_id,
        authorized_by=row.authorized_by,
        index=row.idx,
    )
    outcome = None if row.outcome is None else Outcome(row.outcome)
    return Settled(intent, outcome, row.settled_at, row.reason, row.signature)


def _hex(serial: int) -> str:
    return f"{serial:040x}"
