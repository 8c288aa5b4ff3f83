"""Trust bundles in the store: our own, and those of the trust domains we federate with.

Owns: the rows, their document, the sequence number of our own bundle. Does not own: which authorities belong into our
bundle (`authorities`), fetching foreign ones.

Invariants: our bundle's sequence grows by one with each change of content, and only then (Trust Domain and Bundle
4.1.1). A foreign bundle is not taken in if one of its authorities could be mistaken for one of another domain.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from livery.identity import JwtKey, TrustBundle, TrustDomain, X509Authority
from livery.runtime.clock import Clock
from livery_ca.model import Listing, Page
from livery_ca.store import changes, entries, facts, schema
from livery_ca.store.changes import ChangeKind
from livery_ca.store.database import Database
from livery_ca.store.errors import BundleInUse, BundleNotFound, BundleTaken, ShadowingAuthority
from livery_ca.store.rows import decodes

_TABLE = schema.bundles
_FIRST = Page()


class DeleteMode(Enum):
    """What to do with entries that federate with a bundle to be deleted (SPIRE's `Mode`, same numbers)."""

    RESTRICT = 0  # refuse
    DELETE = 1  # delete them too
    DISSOCIATE = 2  # let them live on without it


class Bundles:
    """The bundles, for those who serve and federate them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """The bundle of this trust domain, our own or a foreign one."""
        return await self._database.read(lambda connection: find(connection, trust_domain))

    async def list(self, page: Page = _FIRST) -> Listing[TrustBundle]:
        """The foreign bundles."""
        return await self._database.read(lambda connection: _list(connection, page))

    async def count(self) -> int:
        """How many bundles there are, our own included (as SPIRE counts)."""
        statement = select(func.count()).select_from(_TABLE)
        return await self._database.read(lambda connection: connection.execute(statement).scalar_one())

    async def create(self, bundle: TrustBundle) -> None:
        """Add a foreign bundle. Raises `BundleTaken` or `ShadowingAuthority`."""
        at = self._clock.now()
        await self._database.write(lambda connection: _create(connection, bundle, at))

    async def update(self, bundle: TrustBundle) -> None:
        """Replace a foreign bundle. Raises `BundleNotFound` or `ShadowingAuthority`."""
        at = self._clock.now()
        await self._database.write(lambda connection: _update(connection, bundle, at))

    async def put(self, bundle: TrustBundle) -> None:
        """Add or replace a foreign bundle. Raises `ShadowingAuthority`."""
        at = self._clock.now()
        await self._database.write(lambda connection: _put(connection, bundle, at))

    async def delete(self, trust_domain: TrustDomain, mode: DeleteMode = DeleteMode.RESTRICT) -> None:
        """Remove a foreign bundle. Raises `BundleNotFound` or `BundleInUse`."""
        at = self._clock.now()
        await self._database.write(lambda connection: _delete(connection, trust_domain, mode, at))


def find(connection: Connection, trust_domain: TrustDomain) -> TrustBundle | None:
    """A bundle, read in the transaction under way."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.trust_domain == trust_domain.name)).first()
    return None if row is None else _bundle(row.trust_domain, row.document)


def publish(connection: Connection, bundle: TrustBundle, at: datetime) -> TrustBundle:
    """Make this our own bundle, in the transaction under way, and return it with its sequence number."""
    old = find(connection, bundle.trust_domain)
    if old is not None and replace(bundle, sequence=old.sequence) == old:
        return old
    sequence = 1 if old is None else (old.sequence or 0) + 1
    new = replace(bundle, sequence=sequence)
    _write(connection, new, at)
    return new


def _create(connection: Connection, bundle: TrustBundle, at: datetime) -> None:
    if find(connection, bundle.trust_domain) is not None:
        raise BundleTaken("bundle already exists", why=f"there is a bundle of {bundle.trust_domain}")
    _put(connection, bundle, at)


def _update(connection: Connection, bundle: TrustBundle, at: datetime) -> None:
    if find(connection, bundle.trust_domain) is None:
        raise _absent(bundle.trust_domain)
    _put(connection, bundle, at)


def _put(connection: Connection, bundle: TrustBundle, at: datetime) -> None:
    if bundle.trust_domain.name == facts.trust_domain(connection):
        raise BundleTaken("bundle already exists", why=f"{bundle.trust_domain} is our own trust domain")
    others = connection.execute(select(_TABLE).where(_TABLE.c.trust_domain != bundle.trust_domain.name))
    for row in others:
        _refuse_shadow(bundle, _bundle(row.trust_domain, row.document))
    _write(connection, bundle, at)


def _refuse_shadow(bundle: TrustBundle, other: TrustBundle) -> None:
    """A path builder that looks an issuer up by name, key identifier or key must never find two."""
    held = {mark for authority in other.x509_authorities for mark in _marks(authority)}
    for authority in bundle.x509_authorities:
        if not held.isdisjoint(_marks(authority)):
            why = f"an authority of {other.trust_domain} has the same subject, key identifier or key"
            raise ShadowingAuthority(f"the bundle of {bundle.trust_domain} is refused", why=why)


def _marks(authority: X509Authority) -> tuple[tuple[str, bytes | str], ...]:
    certificate = authority.certificate
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    subject = certificate.subject.public_bytes()
    return (("subject", subject), ("identifier", authority.subject_key_id), ("key", key))


def _write(connection: Connection, bundle: TrustBundle, at: datetime) -> None:
    name, document = bundle.trust_domain.name, _document(bundle)
    if connection.execute(update(_TABLE).where(_TABLE.c.trust_domain == name).values(document=document)).rowcount == 0:
        connection.execute(insert(_TABLE).values(trust_domain=name, document=document))
    changes.append(connection, ChangeKind.BUNDLE, name, at)


def _delete(connection: Connection, trust_domain: TrustDomain, mode: DeleteMode, at: datetime) -> None:
    name = trust_domain.name
    if name == facts.trust_domain(connection) or find(connection, trust_domain) is None:
        raise _absent(trust_domain)
    members = schema.entry_federations
    users = select(members.c.row_id).where(members.c.trust_domain == name)
    match mode:
        case DeleteMode.RESTRICT:
            count = connection.execute(select(func.count()).select_from(users.subquery())).scalar_one()
            if count:
                raise BundleInUse(name, count)
        case DeleteMode.DELETE:
            entries.remove_where(connection, schema.entries.c.row_id.in_(users), at)
        case DeleteMode.DISSOCIATE:
            ids = connection.execute(select(schema.entries.c.id).where(schema.entries.c.row_id.in_(users))).scalars()
            for entry_id in ids.all():
                changes.append(connection, ChangeKind.ENTRY, entry_id, at)
            connection.execute(delete(members).where(members.c.trust_domain == name))
    connection.execute(delete(_TABLE).where(_TABLE.c.trust_domain == name))
    changes.append(connection, ChangeKind.BUNDLE, name, at)


def _absent(trust_domain: TrustDomain) -> BundleNotFound:
    return BundleNotFound("bundle not found", why=f"there is no foreign bundle of {trust_domain}")


def _list(connection: Connection, page: Page) -> Listing[TrustBundle]:
    foreign = and_(_TABLE.c.row_id > page.after, _TABLE.c.trust_domain != (facts.trust_domain(connection) or ""))
    query = select(_TABLE).where(foreign).order_by(_TABLE.c.row_id)
    if page.size > 0:
        query = query.limit(page.size)
    rows = connection.execute(query).all()
    return Listing(tuple(_bundle(r.trust_domain, r.document) for r in rows), rows[-1].row_id if rows else None)


def _document(bundle: TrustBundle) -> str:
    """Our own form, since the standard's carries neither taint nor a JWT key's end."""
    hint = bundle.refresh_hint
    document = {
        "sequence": bundle.sequence,
        "refresh_hint": None if hint is None else int(hint.total_seconds()),
        "x509": [{"der": _text(a.der()), "tainted": a.tainted} for a in bundle.x509_authorities],
        "jwt": [jwt_key_document(key) for key in bundle.jwt_authorities],
    }
    return json.dumps(document)


def jwt_key_document(key: JwtKey) -> dict[str, Any]:
    """A JWT key as a value that JSON can hold."""
    spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expires = None if key.expires_at is None else key.expires_at.isoformat()
    return {"kid": key.key_id, "spki": _text(spki), "expires_at": expires, "tainted": key.tainted}


def jwt_key_of(document: dict[str, Any]) -> JwtKey:
    """A JWT key from such a value."""
    public_key = load_der_public_key(base64.b64decode(document["spki"]))
    assert isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    expires = document["expires_at"]
    return JwtKey(
        document["kid"], public_key, None if expires is None else datetime.fromisoformat(expires), document["tainted"]
    )


@decodes
def _bundle(name: str, text: str) -> TrustBundle:
    document = json.loads(text)
    hint = document["refresh_hint"]
    return TrustBundle(
        TrustDomain(name),
        x509_authorities=tuple(
            X509Authority(x509.load_der_x509_certificate(base64.b64decode(a["der"])), a["tainted"])
            for a in document["x509"]
        ),
        jwt_authorities=tuple(jwt_key_of(key) for key in document["jwt"]),
        sequence=document["sequence"],
        refresh_hint=None if hint is None else timedelta(seconds=hint),
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
