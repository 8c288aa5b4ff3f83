"""Registration entries in the store.

Owns: the rows of an entry (itself, its selectors, its federations), filters, paging, and the rule that no two entries
have the same SPIFFE ID, parent and selector set. Does not own: what makes an entry valid (`entries`, the doors).

Invariant: an entry federates only with trust domains whose bundle is here.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from livery.identity import Selector, SpiffeId, TrustDomain
from livery.runtime.clock import Clock
from livery_ca.model import Entry, EntryFilter, Listing, Page
from livery_ca.model.entry import canonical_selectors
from livery_ca.store import changes, matching, schema
from livery_ca.store.changes import ChangeKind
from livery_ca.store.database import Database
from livery_ca.store.errors import EntryIdTaken, EntryNotFound, SimilarEntry, UnknownFederatedDomain
from livery_ca.store.rows import decodes

_TABLE = schema.entries
_ALL = EntryFilter()
_FIRST = Page()


class Entries:
    """The entries, for those who manage and serve them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, entry: Entry) -> Entry:
        """Add an entry. Raises `SimilarEntry`, `EntryIdTaken` or `UnknownFederatedDomain`."""
        at = self._clock.now()
        return await self._database.write(lambda connection: add(connection, entry, at))

    async def get(self, entry_id: str) -> Entry | None:
        """The entry with this ID."""
        return await self._database.read(lambda connection: _find(connection, _TABLE.c.id == entry_id))

    async def change(self, entry_id: str, edit: Callable[[Entry], Entry]) -> Entry:
        """Replace the entry by `edit` of it, in one transaction, with the next revision number.

        ID and time of creation stay. `edit` must be pure; what it raises is raised. Raises `EntryNotFound`,
        `SimilarEntry` or `UnknownFederatedDomain`.
        """
        at = self._clock.now()
        return await self._database.write(lambda connection: _change(connection, entry_id, edit, at))

    async def update(self, entry: Entry) -> Entry:
        """Replace the entry of this ID in all fields; otherwise as `change`."""
        return await self.change(entry.id, lambda _: entry)

    async def delete(self, entry_id: str) -> Entry:
        """Remove an entry and return what it was. Raises `EntryNotFound`."""
        at = self._clock.now()
        return await self._database.write(lambda connection: _remove(connection, entry_id, at))

    async def list(self, wanted: EntryFilter = _ALL, page: Page = _FIRST) -> Listing[Entry]:
        """The entries that pass the filter, in the order of their creation."""
        return await self._database.read(lambda connection: _list(connection, wanted, page))

    async def count(self, wanted: EntryFilter = _ALL) -> int:
        """How many entries pass the filter."""
        statement = select(func.count()).select_from(_TABLE).where(*_conditions(wanted))
        return await self._database.read(lambda connection: connection.execute(statement).scalar_one())

    async def prune(self, at: datetime) -> int:
        """Remove the entries that have ended by `at`; returns how many."""
        return await self._database.write(lambda connection: _prune(connection, at))


def add(connection: Connection, entry: Entry, at: datetime) -> Entry:
    """Insert an entry in the transaction under way."""
    entry = _canonical(entry)
    similarity = _similarity(entry)
    if existing := _find(connection, _TABLE.c.similarity == similarity):
        raise SimilarEntry(existing)
    try:
        adding = insert(_TABLE).values(similarity=similarity, **_columns(entry)).returning(_TABLE.c.row_id)
        row_id = connection.execute(adding).scalar_one()
    except IntegrityError as cause:  # the similarity was looked up in this very transaction, so it is the ID
        raise EntryIdTaken("entry ID already exists", why=f"there is an entry {entry.id}") from cause
    _insert_members(connection, row_id, entry)
    changes.append(connection, ChangeKind.ENTRY, entry.id, at)
    return entry


def remove_where(connection: Connection, condition: ColumnElement[bool], at: datetime) -> int:
    """Delete the entries that meet a condition, in the transaction under way; returns how many."""
    ids = connection.execute(select(_TABLE.c.id).where(condition)).scalars().all()
    connection.execute(delete(_TABLE).where(condition))
    for entry_id in ids:
        changes.append(connection, ChangeKind.ENTRY, entry_id, at)
    return len(ids)


def _change(connection: Connection, entry_id: str, edit: Callable[[Entry], Entry], at: datetime) -> Entry:
    old = _find(connection, _TABLE.c.id == entry_id)
    if old is None:
        raise _absent(entry_id)
    new = replace(edit(old), id=old.id, created_at=old.created_at, revision_number=old.revision_number + 1)
    new = _canonical(new)
    similarity = _similarity(new)
    if (twin := _find(connection, _TABLE.c.similarity == similarity)) and twin.id != old.id:
        raise SimilarEntry(twin)
    row_id = connection.execute(select(_TABLE.c.row_id).where(_TABLE.c.id == entry_id)).scalar_one()
    connection.execute(update(_TABLE).where(_TABLE.c.row_id == row_id).values(similarity=similarity, **_columns(new)))
    for members in (schema.entry_selectors, schema.entry_federations):
        connection.execute(delete(members).where(members.c.row_id == row_id))
    _insert_members(connection, row_id, new)
    changes.append(connection, ChangeKind.ENTRY, entry_id, at)
    return new


def _remove(connection: Connection, entry_id: str, at: datetime) -> Entry:
    old = _find(connection, _TABLE.c.id == entry_id)
    if old is None:
        raise _absent(entry_id)
    remove_where(connection, _TABLE.c.id == entry_id, at)
    return old


def _prune(connection: Connection, at: datetime) -> int:
    return remove_where(connection, _TABLE.c.expires_at <= at, at)


def _absent(entry_id: str) -> EntryNotFound:
    return EntryNotFound("entry not found", why=f"there is no entry {entry_id!r}", fix="`livery entry list` shows all")


def _insert_members(connection: Connection, row_id: int, entry: Entry) -> None:
    rows = [{"row_id": row_id, "type": s.type, "value": s.value} for s in entry.selectors]
    if rows:
        connection.execute(insert(schema.entry_selectors), rows)
    for domain in entry.federates_with:
        known = select(schema.bundles.c.row_id).where(schema.bundles.c.trust_domain == domain.name)
        if connection.execute(known).first() is None:
            why, fix = f"there is no bundle of {domain}", f"import the bundle of {domain} first"
            raise UnknownFederatedDomain("unable to find federated bundle", why=why, fix=fix)
        connection.execute(insert(schema.entry_federations).values(row_id=row_id, trust_domain=domain.name))


def _conditions(wanted: EntryFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.spiffe_id is not None:
        conditions.append(_TABLE.c.spiffe_id == str(wanted.spiffe_id))
    if wanted.parent_id is not None:
        conditions.append(_TABLE.c.parent_id == str(wanted.parent_id))
    if wanted.hint is not None:
        conditions.append(_TABLE.c.hint == wanted.hint)
    if wanted.only_downstream:
        conditions.append(_TABLE.c.downstream)
    if wanted.selectors is not None:
        conditions.append(matching.by_selectors(_TABLE, schema.entry_selectors, wanted.selectors))
    if wanted.federates_with is not None:
        conditions.append(matching.by_domains(wanted.federates_with))
    return conditions


def _list(connection: Connection, wanted: EntryFilter, page: Page) -> Listing[Entry]:
    query = select(_TABLE).where(_TABLE.c.row_id > page.after, *_conditions(wanted)).order_by(_TABLE.c.row_id)
    if page.size > 0:
        query = query.limit(page.size)
    rows = connection.execute(query).all()
    members = _members(connection, [row.row_id for row in rows])
    return Listing(tuple(_entry(row, *members[row.row_id]) for row in rows), rows[-1].row_id if rows else None)


def _find(connection: Connection, condition: ColumnElement[bool]) -> Entry | None:
    row = connection.execute(select(_TABLE).where(condition)).first()
    if row is None:
        return None
    return _entry(row, *_members(connection, [row.row_id])[row.row_id])


Members = tuple[list[Selector], list[TrustDomain]]


@decodes
def _members(connection: Connection, row_ids: list[int]) -> dict[int, Members]:
    """The selectors and federations of these rows. Row ids ascend, so one range covers them, whatever their number."""
    members: defaultdict[int, Members] = defaultdict(lambda: ([], []))
    if not row_ids:
        return members
    selectors, federations = schema.entry_selectors, schema.entry_federations
    chosen = set(row_ids)
    for row in connection.execute(select(selectors).where(selectors.c.row_id.between(row_ids[0], row_ids[-1]))):
        if row.row_id in chosen:
            members[row.row_id][0].append(Selector(row.type, row.value))
    for row in connection.execute(select(federations).where(federations.c.row_id.between(row_ids[0], row_ids[-1]))):
        if row.row_id in chosen:
            members[row.row_id][1].append(TrustDomain(row.trust_domain))
    return members


def _canonical(entry: Entry) -> Entry:
    domains = tuple(sorted(set(entry.federates_with)))
    return replace(entry, selectors=canonical_selectors(entry.selectors), federates_with=domains)


def _similarity(entry: Entry) -> bytes:
    # No field can hold a line break (identity refuses control characters), so the lines cannot be read two ways.
    lines: Iterable[str] = (str(entry.spiffe_id), str(entry.parent_id), *(str(s) for s in entry.selectors))
    return hashlib.sha256("\n".join(lines).encode()).digest()


def _columns(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "spiffe_id": str(entry.spiffe_id),
        "parent_id": str(entry.parent_id),
        "created_at": entry.created_at,
        "x509_svid_ttl": entry.x509_svid_ttl,
        "jwt_svid_ttl": entry.jwt_svid_ttl,
        "admin": entry.admin,
        "downstream": entry.downstream,
        "expires_at": entry.expires_at,
        "dns_names": json.dumps(entry.dns_names),
        "revision_number": entry.revision_number,
        "store_svid": entry.store_svid,
        "hint": entry.hint,
        "disable_x509_svid_prefetch": entry.disable_x509_svid_prefetch,
        "jwt_svid_include_jti": entry.jwt_svid_include_jti,
    }


@decodes
def _entry(row: Row[Any], selectors: list[Selector], federates_with: list[TrustDomain]) -> Entry:
    return Entry(
        id=row.id,
        spiffe_id=SpiffeId.parse(row.spiffe_id),
        parent_id=SpiffeId.parse(row.parent_id),
        selectors=tuple(sorted(selectors)),
        created_at=row.created_at,
        x509_svid_ttl=row.x509_svid_ttl,
        jwt_svid_ttl=row.jwt_svid_ttl,
        federates_with=tuple(sorted(federates_with)),
        admin=row.admin,
        downstream=row.downstream,
        expires_at=row.expires_at,
        dns_names=tuple(json.loads(row.dns_names)),
        revision_number=row.revision_number,
        store_svid=row.store_svid,
        hint=row.hint,
        disable_x509_svid_prefetch=row.disable_x509_svid_prefetch,
        jwt_svid_include_jti=row.jwt_svid_include_jti,
    )
