"""Trust bundles: the keys by which a trust domain's SVIDs are verified, and their documents.

Owns: `TrustBundle` with its authorities, `BundleMap`, and their forms: the SPIFFE bundle (a JWK Set), the Workload
API's JWKS and concatenated DER, PEM. Does not own: fetching, storing or ordering bundles, or verifying with them.

Invariants: every authority in a bundle is of a kind that may be one (a leaf certificate never is). A bundle always
knows its trust domain, which its document does not hold; bundles of two trust domains are never merged. What we do not
know in a document is ignored, as the standard demands; what we know and find malformed fails the whole document, so
that a reader keeps the last good one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from livery.identity import certificates, jwk, strict_json
from livery.identity.certificates import PublicKey, Unreadable
from livery.identity.errors import InvalidBundle, InvalidTrustDomain
from livery.identity.trust_domain import TrustDomain

MAX_BUNDLE_BYTES = 4 * 1024 * 1024
MAX_MAP_BYTES = 64 * 1024 * 1024
MAX_AUTHORITIES = 1000  # of each kind, in one bundle
MAX_SEQUENCE = 2**64 - 1
MAX_REFRESH_HINT = timedelta(days=3650)

X509_USE = "x509-svid"  # Trust Domain and Bundle 4.2.2
JWT_USE = "jwt-svid"


@dataclass(frozen=True, slots=True)
class X509Authority:
    """A CA certificate that is an anchor, self-signed or not. `tainted`: still trusted, but to be rotated away from."""

    certificate: x509.Certificate
    tainted: bool = False

    def __post_init__(self) -> None:
        try:
            fault = _authority_fault(self.certificate)
        except Unreadable as e:
            raise InvalidBundle("not an X.509 authority", why=str(e)) from e
        if fault:
            raise InvalidBundle("not an X.509 authority", why=fault)

    @property
    def subject_key_id(self) -> str:
        """The subject key identifier in hexadecimal; of the key itself (RFC 5280 4.2.1.2) when there is none."""
        found = certificates.extension(self.certificate, x509.SubjectKeyIdentifier)
        return (found or x509.SubjectKeyIdentifier.from_public_key(self.certificate.public_key())).digest.hex()

    def der(self) -> bytes:
        """The certificate as DER."""
        return certificates.der(self.certificate)


@dataclass(frozen=True, slots=True)
class JwtKey:
    """A key that signs JWT-SVIDs. `expires_at` is its issuer's knowledge; no bundle document carries it."""

    key_id: str
    public_key: PublicKey = field(hash=False)
    expires_at: datetime | None = None
    tainted: bool = False

    def __post_init__(self) -> None:
        if not self.key_id:
            raise InvalidBundle("not a JWT authority", why="it has no key ID")
        if fault := certificates.key_fault(self.public_key, max_rsa_bits=certificates.MAX_AUTHORITY_RSA_BITS):
            raise InvalidBundle(f"not a JWT authority: {self.key_id!r}", why=fault)


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The authorities of one trust domain, as of `sequence`. Empty means: nothing of that domain is valid."""

    trust_domain: TrustDomain
    x509_authorities: tuple[X509Authority, ...] = ()
    jwt_authorities: tuple[JwtKey, ...] = ()
    sequence: int | None = None
    refresh_hint: timedelta | None = None

    def __post_init__(self) -> None:
        if len({k.key_id for k in self.jwt_authorities}) != len(self.jwt_authorities):
            raise InvalidBundle(f"not a bundle of {self.trust_domain}", why="two JWT keys have one key ID")

    @classmethod
    def from_jwks(cls, trust_domain: TrustDomain, data: bytes) -> Self:
        """Read the SPIFFE bundle format (Trust Domain and Bundle 4)."""
        return cls._of_document(trust_domain, _json(data, MAX_BUNDLE_BYTES))

    @classmethod
    def from_jwt_jwks(cls, trust_domain: TrustDomain, data: bytes) -> Self:
        """Read the Workload API's JWT bundle: a JWK Set of JWT keys alone, whose `use` may be missing."""
        keys = [{"use": JWT_USE, **key} for key in _keys(_json(data, MAX_BUNDLE_BYTES))]
        return cls(trust_domain, jwt_authorities=_jwt_keys(keys))

    @classmethod
    def from_x509_der(cls, trust_domain: TrustDomain, data: bytes) -> Self:
        """Read the Workload API's X.509 bundle: concatenated DER; no bytes are the empty bundle."""
        try:
            found = certificates.read_der(data, max_bytes=MAX_BUNDLE_BYTES, max_count=MAX_AUTHORITIES) if data else ()
        except Unreadable as e:
            raise InvalidBundle(f"not a bundle of {trust_domain}", why=str(e)) from e
        return cls(trust_domain, _distinct(X509Authority(c) for c in found))

    @classmethod
    def from_pem(cls, trust_domain: TrustDomain, data: bytes) -> Self:
        """Read CA certificates from PEM."""
        try:
            found = certificates.read_pem(data, max_bytes=MAX_BUNDLE_BYTES, max_count=MAX_AUTHORITIES)
        except Unreadable as e:
            raise InvalidBundle(f"not a bundle of {trust_domain}", why=str(e)) from e
        return cls(trust_domain, _distinct(X509Authority(c) for c in found))

    @classmethod
    def _of_document(cls, trust_domain: TrustDomain, document: Any) -> Self:
        keys = _keys(document)
        return cls(
            trust_domain,
            x509_authorities=_x509_authorities(keys),
            jwt_authorities=_jwt_keys(keys),
            sequence=_whole_number(document, "spiffe_sequence", MAX_SEQUENCE),
            refresh_hint=_refresh_hint(document),
        )

    def jwt_key(self, key_id: str) -> JwtKey | None:
        """The JWT key with this ID, or None."""
        return next((k for k in self.jwt_authorities if k.key_id == key_id), None)

    def to_jwks(self) -> bytes:
        """Write the SPIFFE bundle format. What is tainted is not in it: the format has no word for that."""
        return strict_json.dump(self._document())

    def jwt_jwks(self) -> bytes:
        """Write the Workload API JWT bundle: JWT keys alone, without `use` (JOSE readers know no `jwt-svid`)."""
        return strict_json.dump(
            {"keys": [{"kid": k.key_id, **jwk.members(k.public_key)} for k in self.jwt_authorities]}
        )

    def x509_der(self) -> bytes:
        """Write the Workload API's X.509 bundle: concatenated DER."""
        return b"".join(a.der() for a in self.x509_authorities)

    def to_pem(self) -> bytes:
        """Write the CA certificates as PEM."""
        return b"".join(a.certificate.public_bytes(Encoding.PEM) for a in self.x509_authorities)

    def _document(self, *, in_map: bool = False) -> dict[str, Any]:
        document: dict[str, Any] = {
            "keys": [
                *(_x509_jwk(a) for a in self.x509_authorities),
                *({"use": JWT_USE, "kid": k.key_id, **jwk.members(k.public_key)} for k in self.jwt_authorities),
            ]
        }
        if self.sequence is not None:
            document["spiffe_sequence"] = self.sequence
        if self.refresh_hint is not None and not in_map:  # a map has none (Trust Domain and Bundle 4.4)
            document["spiffe_refresh_hint"] = int(self.refresh_hint.total_seconds())
        return document


class BundleMap(Mapping[TrustDomain, TrustBundle]):
    """Bundles by trust domain; never changes. Without an entry for a domain, nothing of that domain is trusted."""

    __slots__ = ("_bundles",)

    def __init__(self, bundles: Mapping[TrustDomain, TrustBundle] | None = None) -> None:
        self._bundles = dict(bundles or {})
        if any(name != b.trust_domain for name, b in self._bundles.items()):
            raise InvalidBundle("not a bundle map", why="a bundle stands under another domain's name")

    @classmethod
    def of(cls, *bundles: TrustBundle) -> Self:
        """The map of these bundles, each of another trust domain."""
        found = {b.trust_domain: b for b in bundles}
        if len(found) != len(bundles):
            raise InvalidBundle("not a bundle map", why="two bundles are of one trust domain")
        return cls(found)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a bundle map (Trust Domain and Bundle 4.4). Refresh hints in it are ignored, as it demands."""
        document = _json(data, MAX_MAP_BYTES)
        entries = document.get("trust_domains") if isinstance(document, dict) else None
        if not isinstance(entries, dict):
            raise InvalidBundle("not a bundle map", why="it has no trust_domains object")
        return cls.of(*(_map_entry(name, entry) for name, entry in entries.items()))

    def serialize(self) -> bytes:
        """Write the bundle map."""
        return strict_json.dump({"trust_domains": {str(td): b._document(in_map=True) for td, b in self.items()}})  # noqa: SLF001

    def with_bundle(self, bundle: TrustBundle) -> Self:
        """This map with the bundle in the place of its trust domain's former one."""
        return type(self)({**self._bundles, bundle.trust_domain: bundle})

    def without(self, trust_domain: TrustDomain) -> Self:
        """This map without the trust domain."""
        return type(self)({td: b for td, b in self._bundles.items() if td != trust_domain})

    def __getitem__(self, trust_domain: TrustDomain) -> TrustBundle:
        return self._bundles[trust_domain]

    def __iter__(self) -> Iterator[TrustDomain]:
        return iter(self._bundles)

    def __len__(self) -> int:
        return len(self._bundles)

    def __repr__(self) -> str:
        return f"BundleMap({', '.join(str(td) for td in self._bundles)})"


def _authority_fault(cert: x509.Certificate) -> str:
    constraints = certificates.extension(cert, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return "it is not a CA certificate"
    usage = certificates.extension(cert, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return "its key may not sign certificates"
    key = certificates.public_key(cert)
    # Not verifiable here, but other domains use it and their workloads can: hand it on rather than lose it.
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    return certificates.key_fault(key, max_rsa_bits=certificates.MAX_AUTHORITY_RSA_BITS)


def _json(data: bytes, max_bytes: int) -> Any:
    try:
        return strict_json.parse(data, max_bytes=max_bytes)
    except strict_json.NotJson as e:
        raise InvalidBundle("not a bundle document", why=str(e)) from e


def _keys(document: Any) -> list[dict[str, Any]]:
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(k, dict) for k in keys):
        raise InvalidBundle("not a bundle document", why="it has no array of keys")
    if len(keys) > 2 * MAX_AUTHORITIES:
        raise InvalidBundle("not a bundle document", why=f"more than {2 * MAX_AUTHORITIES} keys")
    return keys


def _x509_authorities(keys: list[dict[str, Any]]) -> tuple[X509Authority, ...]:
    found = (_x509_authority(k) for k in keys if k.get("use") == X509_USE)
    return _distinct(a for a in found if a is not None)


def _x509_authority(entry: dict[str, Any]) -> X509Authority | None:
    chain = entry.get("x5c")
    key = _read_key(entry)
    if not chain or key is None:  # Trust Domain and Bundle 4.2; X509-SVID 6.1: ignore the entry
        return None
    if not isinstance(chain, list) or not isinstance(chain[0], str):
        raise InvalidBundle("not a bundle document", why="an x5c is not an array of texts")
    try:
        der = base64.b64decode(chain[0], validate=True)
        (cert,) = certificates.read_der(der, max_bytes=MAX_BUNDLE_BYTES, max_count=1)
    except (binascii.Error, ValueError, Unreadable) as e:
        raise InvalidBundle("not a bundle document", why=f"an x5c holds no certificate: {str(e)[:200]}") from e
    authority = X509Authority(cert)
    if certificates.public_key(cert) != key:  # RFC 7517 4.7
        raise InvalidBundle("not a bundle document", why="a JWK and the certificate in its x5c hold different keys")
    return authority


def _jwt_keys(keys: list[dict[str, Any]]) -> tuple[JwtKey, ...]:
    return tuple(k for k in (_jwt_key(k) for k in keys if k.get("use") == JWT_USE) if k is not None)


def _jwt_key(entry: dict[str, Any]) -> JwtKey | None:
    key = _read_key(entry)
    if key is None or isinstance(key, ed25519.Ed25519PublicKey):  # JWT-SVID 2.1 has no algorithm for it
        return None
    key_id = entry.get("kid")
    return JwtKey(key_id if isinstance(key_id, str) else "", key)


def _read_key(entry: dict[str, Any]) -> jwk.AuthorityKey | None:
    try:
        return jwk.read_key(entry)
    except jwk.BadKey as e:
        raise InvalidBundle("not a bundle document", why=f"a {entry.get('use')} key: {e}") from e


def _x509_jwk(authority: X509Authority) -> dict[str, Any]:
    key = certificates.public_key(authority.certificate)
    x5c = [base64.b64encode(authority.der()).decode()]
    return {"use": X509_USE, **jwk.members(key), "x5c": x5c}  # type: ignore[arg-type]  # X509Authority checked its type


def _whole_number(document: dict[str, Any], name: str, most: int) -> int | None:
    value = document.get(name)
    if value is None and name not in document:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidBundle("not a bundle document", why=f"its {name} is not a whole number of at most {most}")
    return value


def _refresh_hint(document: dict[str, Any]) -> timedelta | None:
    seconds = _whole_number(document, "spiffe_refresh_hint", int(MAX_REFRESH_HINT.total_seconds()))
    return None if seconds is None else timedelta(seconds=seconds)


def _map_entry(name: str, entry: Any) -> TrustBundle:
    try:
        trust_domain = TrustDomain(name)
    except InvalidTrustDomain as e:
        raise InvalidBundle("not a bundle map", why=str(e), fix=e.fix) from e
    known = {k: v for k, v in entry.items() if k != "spiffe_refresh_hint"} if isinstance(entry, dict) else entry
    return TrustBundle._of_document(trust_domain, known)  # noqa: SLF001


def _distinct(authorities: Iterable[X509Authority]) -> tuple[X509Authority, ...]:
    return tuple(dict.fromkeys(authorities))
