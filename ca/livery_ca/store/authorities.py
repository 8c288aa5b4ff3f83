"""The trust domain's authorities in the store, with their journal and the bundle that follows from them.

Owns: the rows of authorities and of their journal. Does not own: which moves are allowed (`livery_ca.authorities`).

Invariant: an authority's state, the journal line that says why, and the bundle that shows it change in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Row, insert, select, update

from livery.identity import TrustBundle, TrustDomain
from livery.runtime.clock import Clock
from livery_ca.model import Authority, AuthorityEvent, AuthorityKind, AuthorityState
from livery_ca.store import bundles, changes, facts, schema
from livery_ca.store.changes import ChangeKind
from livery_ca.store.database import Database
from livery_ca.store.rows import decodes

_TABLE = schema.authorities
_EVENTS = schema.authority_events


class AuthorityRows:
    """The authorities, for the one who keeps them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, trust_domain: TrustDomain) -> None:
        """Make the store this trust domain's. Raises `StoreForeign`."""
        at = self._clock.now()
        await self._database.write(lambda connection: facts.claim(connection, trust_domain, at))

    async def owner(self) -> str | None:
        """The name of the trust domain that the store belongs to; None before it was claimed."""
        return await self._database.read(facts.trust_domain)

    async def list(self) -> tuple[Authority, ...]:
        """All authorities that are not retired, oldest first."""
        query = select(_TABLE).where(_TABLE.c.state != AuthorityState.RETIRED.value)
        ordered = query.order_by(_TABLE.c.issued_at, _TABLE.c.id)
        return await self._database.read(lambda connection: tuple(map(_authority, connection.execute(ordered))))

    async def journal(self) -> tuple[AuthorityEvent, ...]:
        """Every event, oldest first."""
        query = select(_EVENTS).order_by(_EVENTS.c.row_id)
        return await self._database.read(lambda connection: tuple(map(_event, connection.execute(query))))

    async def note(self, event: AuthorityEvent) -> None:
        """Append to the journal alone: what is about to be done outside the store, or was undone."""
        await self._database.write(lambda connection: _append(connection, [event]))

    async def apply(
        self, changed: Sequence[Authority], events: Sequence[AuthorityEvent], bundle: TrustBundle
    ) -> TrustBundle:
        """Write authorities, events and our bundle at once; returns the bundle with its sequence number."""
        at = self._clock.now()

        def work(connection: Connection) -> TrustBundle:
            for authority in changed:
                _put(connection, authority)
                changes.append(connection, ChangeKind.AUTHORITY, authority.id, at)
            _append(connection, events)
            return bundles.publish(connection, bundle, at)

        return await self._database.write(work)


def _put(connection: Connection, authority: Authority) -> None:
    columns = _columns(authority)
    if connection.execute(update(_TABLE).where(_TABLE.c.id == authority.id).values(columns)).rowcount == 0:
        connection.execute(insert(_TABLE).values(columns))


def _append(connection: Connection, events: Sequence[AuthorityEvent]) -> None:
    rows = [
        {
            "at": event.at,
            "kind": event.kind.value,
            "key_id": event.key_id,
            "authority_id": event.authority_id,
            "event": event.event,
            "why": event.why,
        }
        for event in events
    ]
    if rows:
        connection.execute(insert(_EVENTS), rows)


def _columns(authority: Authority) -> dict[str, Any]:
    key = authority.jwt_key
    return {
        "id": authority.id,
        "kind": authority.kind.value,
        "state": authority.state.value,
        "key_id": authority.key_id,
        "issued_at": authority.issued_at,
        "not_before": authority.not_before,
        "not_after": authority.not_after,
        "chain": _pem(authority.chain),
        "roots": _pem(authority.roots),
        "jwt_key": None if key is None else json.dumps(bundles.jwt_key_document(key)).encode(),
        "changed_at": authority.changed_at,
    }


@decodes
def _authority(row: Row[Any]) -> Authority:
    return Authority(
        id=row.id,
        kind=AuthorityKind(row.kind),
        state=AuthorityState(row.state),
        key_id=row.key_id,
        issued_at=row.issued_at,
        not_before=row.not_before,
        not_after=row.not_after,
        chain=_certificates(row.chain),
        roots=_certificates(row.roots),
        jwt_key=None if row.jwt_key is None else bundles.jwt_key_of(json.loads(row.jwt_key)),
        changed_at=row.changed_at,
    )


@decodes
def _event(row: Row[Any]) -> AuthorityEvent:
    return AuthorityEvent(row.at, AuthorityKind(row.kind), row.key_id, row.authority_id, row.event, row.why)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(pem)) if pem else ()
