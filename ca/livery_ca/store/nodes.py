"""Attested nodes in the store.

Owns: a node's rows, the two serials and their promotion, banning, filters and paging. Does not own: attestation itself,
or who may act as a node (`doors.guard.rights`).

Invariant: at most two serials of a node are acceptable, and none of a banned one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, func, insert, not_, select, update

from livery.identity import Selector, SpiffeId
from livery.runtime.clock import Clock
from livery_ca.model import Listing, Node, NodeFilter, Page
from livery_ca.model.entry import canonical_selectors
from livery_ca.store import changes, entries, matching, schema
from livery_ca.store.changes import ChangeKind
from livery_ca.store.database import Database
from livery_ca.store.errors import NodeBanned, NodeKnown, NodeNotFound
from livery_ca.store.rows import decodes
from livery_ca.store.writes import RefuseKnown, RenewNode

_TABLE = schema.nodes
_ALL = NodeFilter()
_FIRST = Page()
_BANNED = and_(_TABLE.c.serial == "", _TABLE.c.new_serial == "")
# Every call of an agent asks these two: made once, they are compiled once.
_BY_ID = select(_TABLE).where(_TABLE.c.id == bindparam("wanted"))
_SELECTORS = select(schema.node_selectors).where(
    schema.node_selectors.c.row_id.between(bindparam("first"), bindparam("last"))
)
_MAX_SEQUENCE = 2**63 - 1
_JOIN_TOKEN = ("spire", "agent", "join_token")
ALIAS_SELECTOR = "spiffe_id"  # the selector type of the entry that gives a join-token agent its alias


class Nodes:
    """The nodes, for those who admit and manage them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, node_id: SpiffeId) -> Node | None:
        """The node with this SPIFFE ID."""
        return await self._database.read(lambda connection: find(connection, node_id))

    async def list(self, wanted: NodeFilter = _ALL, page: Page = _FIRST) -> Listing[Node]:
        """The nodes that pass the filter, in the order in which they first attested."""
        return await self._database.read(lambda connection: _list(connection, wanted, page))

    async def count(self, wanted: NodeFilter = _ALL) -> int:
        """How many nodes pass the filter."""
        statement = select(func.count()).select_from(_TABLE).where(*_conditions(wanted))
        return await self._database.read(lambda connection: connection.execute(statement).scalar_one())

    async def attest(self, node: Node) -> None:
        """Create the node or replace it. Raises `NodeBanned`. (An attestation writes it in its issuance record.)"""
        at = self._clock.now()
        await self._database.write(lambda connection: attest(connection, node, at))

    async def promote(self, node_id: SpiffeId, serial: str) -> bool:
        """Make `serial` the node's current one if it is its new one; says whether it was. The old one ends there."""
        at = self._clock.now()
        return await self._database.write(lambda connection: _promote(connection, node_id, serial, at))

    async def report(self, node_id: SpiffeId, agent_version: str, bundle_sequence: int | None) -> None:
        """Note what the agent says of itself. Raises `NodeNotFound`."""
        # An agent may claim any 64-bit number; the column is signed.
        sequence = None if bundle_sequence is None else min(bundle_sequence, _MAX_SEQUENCE)
        values = {"agent_version": agent_version, "bundle_sequence": sequence}
        at = self._clock.now()
        await self._database.write(lambda connection: _set(connection, node_id, values, at))

    async def ban(self, node_id: SpiffeId) -> None:
        """Accept no certificate of this node any more, and no attestation. Raises `NodeNotFound`."""
        values = {"serial": "", "new_serial": "", "new_expires_at": None}
        at = self._clock.now()
        await self._database.write(lambda connection: _set(connection, node_id, values, at))

    async def delete(self, node_id: SpiffeId) -> None:
        """Forget the node, and the join token it came by with its alias; it may attest anew. Raises `NodeNotFound`."""
        at = self._clock.now()
        await self._database.write(lambda connection: _delete(connection, node_id, at))


def find(connection: Connection, node_id: SpiffeId) -> Node | None:
    """The node, read in the transaction under way."""
    row = connection.execute(_BY_ID, {"wanted": str(node_id)}).first()
    return None if row is None else _node(row, _selectors(connection, [row.row_id])[row.row_id])


def attest(connection: Connection, node: Node, at: datetime) -> None:
    """Create or replace a node in the transaction under way; a banned one stays banned."""
    old = connection.execute(select(_TABLE).where(_TABLE.c.id == str(node.id))).first()
    if old is None:
        adding = insert(_TABLE).values(_columns(node)).returning(_TABLE.c.row_id)
        row_id = connection.execute(adding).scalar_one()
    elif not old.serial and not old.new_serial:
        raise _banned()
    else:
        row_id = old.row_id
        # What the agent reported of itself outlives a re-attestation.
        kept = replace(node, agent_version=old.agent_version, bundle_sequence=old.bundle_sequence)
        connection.execute(update(_TABLE).where(_TABLE.c.row_id == row_id).values(_columns(kept)))
        connection.execute(delete(schema.node_selectors).where(schema.node_selectors.c.row_id == row_id))
    rows = [{"row_id": row_id, "type": s.type, "value": s.value} for s in canonical_selectors(node.selectors)]
    if rows:
        connection.execute(insert(schema.node_selectors), rows)
    changes.append(connection, ChangeKind.NODE, str(node.id), at)


def refuse_known(connection: Connection, refusal: RefuseKnown) -> None:
    """Raise if one of these nodes is there, in the transaction under way."""
    for node_id in refusal.ids:
        node = find(connection, node_id)
        if node is not None:
            raise _banned() if node.banned else NodeKnown(node_id)


def renew(connection: Connection, renewal: RenewNode, at: datetime) -> None:
    """Give a node its new serial, in the transaction under way."""
    statement = (
        update(_TABLE)
        .where(_TABLE.c.id == str(renewal.id), not_(_BANNED))
        .values(new_serial=renewal.new_serial, new_expires_at=renewal.new_expires_at)
    )
    if connection.execute(statement).rowcount == 0:
        raise _absent() if find(connection, renewal.id) is None else _banned()
    changes.append(connection, ChangeKind.NODE, str(renewal.id), at)


def _promote(connection: Connection, node_id: SpiffeId, serial: str, at: datetime) -> bool:
    statement = (
        update(_TABLE)
        .where(_TABLE.c.id == str(node_id), _TABLE.c.new_serial == serial, _TABLE.c.new_serial != "")
        .values(serial=serial, serial_expires_at=_TABLE.c.new_expires_at, new_serial="", new_expires_at=None)
    )
    promoted = connection.execute(statement).rowcount == 1
    if promoted:
        changes.append(connection, ChangeKind.NODE, str(node_id), at)
    return promoted


def _set(connection: Connection, node_id: SpiffeId, values: dict[str, Any], at: datetime) -> None:
    if connection.execute(update(_TABLE).where(_TABLE.c.id == str(node_id)).values(values)).rowcount == 0:
        raise _absent()
    changes.append(connection, ChangeKind.NODE, str(node_id), at)


def _delete(connection: Connection, node_id: SpiffeId, at: datetime) -> None:
    if connection.execute(delete(_TABLE).where(_TABLE.c.id == str(node_id))).rowcount == 0:
        raise _absent()
    table, members = schema.entries, schema.entry_selectors
    aliased = select(members.c.row_id).where(members.c.type == ALIAS_SELECTOR)
    entries.remove_where(connection, and_(table.c.parent_id == str(node_id), table.c.row_id.in_(aliased)), at)
    if node_id.segments[:-1] == _JOIN_TOKEN:
        # Until it ends the token still admits the key it is bound to, and whoever evicts a node means it to stay out.
        connection.execute(delete(schema.join_tokens).where(schema.join_tokens.c.value == node_id.segments[-1]))
    changes.append(connection, ChangeKind.NODE, str(node_id), at)


def _absent() -> NodeNotFound:
    return NodeNotFound("agent not found", why="no node has attested under this ID", fix="`livery node list` shows all")


def _banned() -> NodeBanned:
    return NodeBanned(
        "agent is banned", why="an operator banned this node", fix="delete the node to let it attest anew"
    )


def _conditions(wanted: NodeFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.attestation_type is not None:
        conditions.append(_TABLE.c.attestation_type == wanted.attestation_type)
    if wanted.can_reattest is not None:
        conditions.append(_TABLE.c.can_reattest == wanted.can_reattest)
    if wanted.expires_before is not None:
        conditions.append(_TABLE.c.serial_expires_at < wanted.expires_before)
    if wanted.banned is not None:
        conditions.append(_BANNED if wanted.banned else not_(_BANNED))
    if wanted.selectors is not None:
        conditions.append(matching.by_selectors(_TABLE, schema.node_selectors, wanted.selectors))
    return conditions


def _list(connection: Connection, wanted: NodeFilter, page: Page) -> Listing[Node]:
    query = select(_TABLE).where(_TABLE.c.row_id > page.after, *_conditions(wanted)).order_by(_TABLE.c.row_id)
    if page.size > 0:
        query = query.limit(page.size)
    rows = connection.execute(query).all()
    selectors = _selectors(connection, [row.row_id for row in rows])
    return Listing(tuple(_node(row, selectors[row.row_id]) for row in rows), rows[-1].row_id if rows else None)


@decodes
def _selectors(connection: Connection, row_ids: list[int]) -> dict[int, list[Selector]]:
    found: defaultdict[int, list[Selector]] = defaultdict(list)
    if row_ids:
        chosen = set(row_ids)
        for row in connection.execute(_SELECTORS, {"first": row_ids[0], "last": row_ids[-1]}):
            if row.row_id in chosen:
                found[row.row_id].append(Selector(row.type, row.value))
    return found


def _columns(node: Node) -> dict[str, Any]:
    return {
        "id": str(node.id),
        "attestation_type": node.attestation_type,
        "serial": node.serial,
        "serial_expires_at": node.serial_expires_at,
        "new_serial": node.new_serial,
        "new_expires_at": node.new_expires_at,
        "can_reattest": node.can_reattest,
        "agent_version": node.agent_version,
        "bundle_sequence": node.bundle_sequence,
    }


@decodes
def _node(row: Row[Any], selectors: list[Selector]) -> Node:
    return Node(
        id=SpiffeId.parse(row.id),
        attestation_type=row.attestation_type,
        serial=row.serial,
        serial_expires_at=row.serial_expires_at,
        can_reattest=row.can_reattest,
        selectors=tuple(sorted(selectors)),
        new_serial=row.new_serial,
        new_expires_at=row.new_expires_at,
        agent_version=row.agent_version,
        bundle_sequence=row.bundle_sequence,
    )
