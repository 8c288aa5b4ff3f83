"""The SPIFFE bundle as a document: a JWK Set, read with the standard's patience and written to its letter.

Owns: which entries of the document are authorities, which are to be ignored, and which spoil the whole of it; the
document's own members. Does not own: the types of the authorities (`authorities`) or the bundle (`bundle`).

Invariant: raises `InvalidBundle` and nothing else. What we do not know is ignored (Trust Domain and Bundle 4.2,
RFC 7517 5); what we know and find malformed fails the document, so that a reader keeps the last good one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from livery.identity import certificates, jwk, strict_json
from livery.identity.authorities import JwtKey, X509Authority
from livery.identity.certificates import Unreadable
from livery.identity.errors import InvalidBundle

MAX_BUNDLE_BYTES = 4 * 1024 * 1024
MAX_AUTHORITIES = 2000  # in one bundle, of all kinds together
MAX_SEQUENCE = 2**64 - 1
MAX_REFRESH_HINT = timedelta(days=3650)

X509_USE = "x509-svid"  # Trust Domain and Bundle 4.2.2
JWT_USE = "jwt-svid"


def parse(data: bytes, *, max_bytes: int = MAX_BUNDLE_BYTES) -> dict[str, Any]:
    """Read a JSON object, whose members are still to be looked at."""
    try:
        document = strict_json.parse(data, max_bytes=max_bytes)
    except strict_json.NotJson as e:
        raise InvalidBundle("not a bundle document", why=str(e)) from e
    if not isinstance(document, dict):
        raise _refusal("it is no JSON object")
    return document


def keys(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The JWKs, whatever they are; the member must be there and may be empty (Trust Domain and Bundle 4.1.3)."""
    found = document.get("keys")
    if not isinstance(found, list) or not all(isinstance(k, dict) for k in found):
        raise _refusal("it has no array of keys")
    if len(found) > MAX_AUTHORITIES:
        raise _refusal(f"more than {MAX_AUTHORITIES} keys")
    return found


def sequence(document: dict[str, Any]) -> int | None:
    """The bundle's sequence number, 64 bits without a sign (Trust Domain and Bundle 4.1.1)."""
    return _whole_number(document, "spiffe_sequence", MAX_SEQUENCE)


def refresh_hint(document: dict[str, Any]) -> timedelta | None:
    """How often to ask again (Trust Domain and Bundle 4.1.2)."""
    seconds = _whole_number(document, "spiffe_refresh_hint", int(MAX_REFRESH_HINT.total_seconds()))
    return None if seconds is None else timedelta(seconds=seconds)


def x509_authorities(found: Iterable[dict[str, Any]]) -> tuple[X509Authority, ...]:
    """The CA certificates among JWKs, each once."""
    authorities = (_x509_authority(k) for k in found if k.get("use") == X509_USE)
    return distinct(a for a in authorities if a is not None)


def jwt_keys(found: Iterable[dict[str, Any]]) -> tuple[JwtKey, ...]:
    """The JWT keys among JWKs."""
    return tuple(k for k in (_jwt_key(k) for k in found if k.get("use") == JWT_USE) if k is not None)


def distinct(authorities: Iterable[X509Authority]) -> tuple[X509Authority, ...]:
    """Each authority once, in the order given."""
    return tuple(dict.fromkeys(authorities))


def x509_jwk(authority: X509Authority) -> dict[str, Any]:
    """A CA certificate as a JWK: one `x5c` value and no `kid` (X509-SVID 6.1)."""
    key = certificates.public_key(authority.certificate)
    x5c = [base64.b64encode(authority.der()).decode()]
    return {"use": X509_USE, **jwk.members(key), "x5c": x5c}  # type: ignore[arg-type]  # X509Authority checked its type


def jwt_jwk(key: JwtKey, *, with_use: bool) -> dict[str, Any]:
    """A JWT key as a JWK (JWT-SVID 6.1)."""
    use = {"use": JWT_USE} if with_use else {}
    return {**use, "kid": key.key_id, **jwk.members(key.public_key)}


def _x509_authority(entry: dict[str, Any]) -> X509Authority | None:
    chain = entry.get("x5c")
    if not chain:  # X509-SVID 6.2: ignore an entry without a certificate, whatever else is in it
        return None
    key = _read_key(entry)
    if key is None:
        return None
    if not isinstance(chain, list) or not isinstance(chain[0], str):
        raise _refusal("an x5c is not an array of texts")
    try:
        der = base64.b64decode(chain[0], validate=True)
        (cert,) = certificates.read_der(der, max_bytes=MAX_BUNDLE_BYTES, max_count=1)
    except (ValueError, Unreadable) as e:
        raise _refusal(f"an x5c holds no certificate: {str(e)[:200]}") from e
    authority = X509Authority(cert)
    if certificates.public_key(cert) != key:  # RFC 7517 4.7
        raise _refusal("a JWK and the certificate in its x5c hold different keys")
    return authority


def _jwt_key(entry: dict[str, Any]) -> JwtKey | None:
    key, key_id = _read_key(entry), entry.get("kid")
    if key is None or isinstance(key, ed25519.Ed25519PublicKey):  # JWT-SVID 2.1 has no algorithm for it
        return None
    return JwtKey(key_id if isinstance(key_id, str) else "", key)


def _read_key(entry: dict[str, Any]) -> jwk.AuthorityKey | None:
    try:
        return jwk.read_key(entry)
    except jwk.BadKey as e:
        raise _refusal(f"a {entry.get('use')} key: {e}") from e


def _whole_number(document: dict[str, Any], name: str, most: int) -> int | None:
    if name not in document:
        return None
    value = document[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _refusal(f"its {name} is not a whole number of at most {most}")
    return value


def _refusal(why: str) -> InvalidBundle:
    return InvalidBundle("not a bundle document", why=why)
