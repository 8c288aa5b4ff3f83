"""Between the messages of `spire.api.types` and our values, for every door and client that speaks that API.

Owns: SPIFFE IDs, selectors and bundles, both ways. Does not own: entries, nodes or SVIDs (the roles' own types), nor
which status code a malformed message gets.

Invariants: what comes in is parsed by `livery.identity` or refused with its errors, never repaired; what the format
can say survives the way there and back, `tainted` and the sequence included.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from livery.identity import (
    IdentityError,
    InvalidBundle,
    JwtKey,
    Selector,
    SpiffeId,
    TrustBundle,
    TrustDomain,
    X509Authority,
    parse_chain,
)
from livery.wire import types_api

_MAX_JWT_KEY = 4096  # bytes of a PKIX public key; RSA-8192 takes 1,062


def spiffe_id_to_wire(spiffe_id: SpiffeId) -> types_api.SPIFFEID:
    """Write a SPIFFE ID; the path keeps its leading slash."""
    return types_api.SPIFFEID(trust_domain=spiffe_id.trust_domain.name, path=spiffe_id.path)


def spiffe_id_from_wire(message: types_api.SPIFFEID) -> SpiffeId:
    """Read a SPIFFE ID. Raises `InvalidTrustDomain` or `InvalidSpiffeId`."""
    return SpiffeId.of(TrustDomain.parse(message.trust_domain), message.path)


def selector_to_wire(selector: Selector) -> types_api.Selector:
    """Write a selector."""
    return types_api.Selector(type=selector.type, value=selector.value)


def selector_from_wire(message: types_api.Selector) -> Selector:
    """Read a selector. Raises `InvalidSelector`."""
    return Selector(message.type, message.value)


def selectors_to_wire(selectors: Iterable[Selector]) -> list[types_api.Selector]:
    """Write selectors, in order."""
    return [selector_to_wire(each) for each in selectors]


def selectors_from_wire(messages: Iterable[types_api.Selector]) -> tuple[Selector, ...]:
    """Read selectors, in order. Raises `InvalidSelector`."""
    return tuple(selector_from_wire(each) for each in messages)


def bundle_to_wire(bundle: TrustBundle) -> types_api.Bundle:
    """Write a bundle; what it does not say (sequence, refresh hint) is 0."""
    return types_api.Bundle(
        trust_domain=bundle.trust_domain.name,
        x509_authorities=[
            types_api.X509Certificate(asn1=each.der(), tainted=each.tainted) for each in bundle.x509_authorities
        ],
        jwt_authorities=[_jwt_key_to_wire(each) for each in bundle.jwt_authorities],
        refresh_hint=int(bundle.refresh_hint.total_seconds()) if bundle.refresh_hint else 0,
        sequence_number=bundle.sequence or 0,
    )


def bundle_from_wire(message: types_api.Bundle) -> TrustBundle:
    """Read a bundle. Raises `InvalidTrustDomain` or `InvalidBundle`. WIT keys are not ours to use and are left out."""
    trust_domain = TrustDomain.parse(message.trust_domain)
    return TrustBundle(
        trust_domain=trust_domain,
        x509_authorities=tuple(each for one in message.x509_authorities for each in _x509_from_wire(one)),
        jwt_authorities=tuple(_jwt_key_from_wire(each) for each in message.jwt_authorities),
        sequence=message.sequence_number,
        refresh_hint=_refresh_hint(message.refresh_hint),
    )


def _x509_from_wire(message: types_api.X509Certificate) -> list[X509Authority]:
    # SPIRE reads one or more concatenated certificates here.
    try:
        return [X509Authority(each, message.tainted) for each in parse_chain(message.asn1)]
    except IdentityError as error:
        raise InvalidBundle("not a bundle", why=f"an X.509 authority: {error.why}") from error


def _jwt_key_to_wire(authority: JwtKey) -> types_api.JWTKey:
    return types_api.JWTKey(
        public_key=authority.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        key_id=authority.key_id,
        expires_at=int(authority.expires_at.timestamp()) if authority.expires_at else 0,
        tainted=authority.tainted,
    )


def _jwt_key_from_wire(message: types_api.JWTKey) -> JwtKey:
    return JwtKey(message.key_id, _public_key(message.public_key), _expiry(message.expires_at), message.tainted)


def _public_key(der: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    if len(der) > _MAX_JWT_KEY:
        raise InvalidBundle("not a bundle", why="a JWT key is too long")
    try:
        found = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidBundle("not a bundle", why="a JWT key cannot be read") from error
    if not isinstance(found, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise InvalidBundle("not a bundle", why="a JWT key is neither EC nor RSA")  # JWT-SVID 2.1
    return found


def _refresh_hint(seconds: int) -> timedelta | None:
    if seconds < 0:
        raise InvalidBundle("not a bundle", why="its refresh hint is negative")
    try:
        return timedelta(seconds=seconds) if seconds else None
    except OverflowError as error:
        raise InvalidBundle("not a bundle", why="its refresh hint is too long") from error


def _expiry(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds else None
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidBundle("not a bundle", why="a JWT key ends at no date") from error
