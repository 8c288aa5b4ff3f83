"""Trust bundles: the authorities by which a trust domain's SVIDs are verified, and maps of them.

Owns: `TrustBundle`, `BundleMap` and their forms: the SPIFFE bundle, the Workload API's JWKS and concatenated DER, PEM.
Does not own: the rules of the JSON document (`bundle_document`), fetching or storing bundles, or verifying with them.

Invariants: a bundle always knows its trust domain, which its document does not hold (Trust Domain and Bundle 3), and
bundles of two trust domains are never merged. Neither a bundle nor a map ever changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from cryptography.hazmat.primitives.serialization import Encoding

from livery.identity import bundle_document as document
from livery.identity import certificates, strict_json
from livery.identity.authorities import JwtKey, Marks, X509Authority
from livery.identity.certificates import Unreadable
from livery.identity.errors import InvalidBundle, InvalidTrustDomain
from livery.identity.trust_domain import TrustDomain

MAX_MAP_BYTES = 64 * 1024 * 1024


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
        found = document.parse(data)
        return cls(trust_domain, *_authorities(found), document.sequence(found), document.refresh_hint(found))

    @classmethod
    def from_jwt_jwks(cls, trust_domain: TrustDomain, data: bytes) -> Self:
        """Read the Workload API's JWT bundle: a JWK Set of JWT keys alone, whose `use` may be missing."""
        keys = [{"use": document.JWT_USE, **key} for key in document.keys(document.parse(data))]
        return cls(trust_domain, jwt_authorities=document.jwt_keys(keys))

    @classmethod
    def from_x509_der(cls, trust_domain: TrustDomain, data: bytes) -> Self:
        """Read the Workload API's X.509 bundle: concatenated DER; no bytes are the empty bundle."""
        return cls._of_certificates(trust_domain, data, certificates.read_der) if data else cls(trust_domain)

    @classmethod
    def from_pem(cls, trust_domain: TrustDomain, data: bytes) -> Self:
        """Read CA certificates from PEM."""
        return cls._of_certificates(trust_domain, data, certificates.read_pem)

    @classmethod
    def _of_certificates(cls, trust_domain: TrustDomain, data: bytes, read: certificates.Reader) -> Self:
        try:
            found = read(data, max_bytes=document.MAX_BUNDLE_BYTES, max_count=document.MAX_AUTHORITIES)
        except Unreadable as e:
            raise InvalidBundle(f"not a bundle of {trust_domain}", why=str(e)) from e
        return cls(trust_domain, document.distinct(X509Authority(c) for c in found))

    def jwt_key(self, key_id: str) -> JwtKey | None:
        """The JWT key with this ID, or None."""
        return next((k for k in self.jwt_authorities if k.key_id == key_id), None)

    def to_jwks(self) -> bytes:
        """Write the SPIFFE bundle format. What is tainted is not in it: the format has no word for that."""
        found = _document(self)
        if self.refresh_hint is not None:
            found["spiffe_refresh_hint"] = int(self.refresh_hint.total_seconds())
        return strict_json.dump(found)

    def jwt_jwks(self) -> bytes:
        """Write the Workload API JWT bundle: JWT keys alone, without `use` (JOSE readers know no `jwt-svid`)."""
        return strict_json.dump({"keys": [document.jwt_jwk(k, with_use=False) for k in self.jwt_authorities]})

    def x509_der(self) -> bytes:
        """Write the Workload API's X.509 bundle: concatenated DER."""
        return b"".join(a.der() for a in self.x509_authorities)

    def to_pem(self) -> bytes:
        """Write the CA certificates as PEM."""
        return b"".join(a.certificate.public_bytes(Encoding.PEM) for a in self.x509_authorities)

    def overlap(self, other: TrustBundle) -> str:
        """What an authority of this bundle has in common with one of `other`, or an empty text.

        A key belongs to one trust domain (Trust Domain and Bundle 6.2). An authority with another domain's subject or
        key identifier is no better: a verifier that holds both at once may pick the wrong one and refuse everybody.
        """
        ours, theirs = ([a.marks for a in bundle.x509_authorities] for bundle in (self, other))
        for name, our, their in zip(Marks._fields, zip(*ours, strict=True), zip(*theirs, strict=True), strict=False):
            if not set(our).isdisjoint(their):
                shared = name.replace("_", " ")
                return f"an X.509 authority of {self.trust_domain} has the {shared} of one of {other.trust_domain}"
        if any(a.public_key == b.public_key for a in self.jwt_authorities for b in other.jwt_authorities):
            return f"a JWT authority of {self.trust_domain} has the key of one of {other.trust_domain}"
        return ""


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
        """Read a bundle map (Trust Domain and Bundle 5.1). Refresh hints in it are ignored, as it demands."""
        entries = document.parse(data, max_bytes=MAX_MAP_BYTES).get("trust_domains")
        if not isinstance(entries, dict):
            raise InvalidBundle("not a bundle map", why="it has no trust_domains object")
        return cls.of(*(_map_entry(name, entry) for name, entry in entries.items()))

    def serialize(self) -> bytes:
        """Write the bundle map, without refresh hints."""
        return strict_json.dump({"trust_domains": {str(td): _document(b) for td, b in self.items()}})

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


def _authorities(found: dict[str, Any]) -> tuple[tuple[X509Authority, ...], tuple[JwtKey, ...]]:
    keys = document.keys(found)
    return document.x509_authorities(keys), document.jwt_keys(keys)


def _document(bundle: TrustBundle) -> dict[str, Any]:
    x509_jwks = [document.x509_jwk(a) for a in bundle.x509_authorities]
    jwt_jwks = [document.jwt_jwk(k, with_use=True) for k in bundle.jwt_authorities]
    found: dict[str, Any] = {"keys": [*x509_jwks, *jwt_jwks]}
    if bundle.sequence is not None:
        found["spiffe_sequence"] = bundle.sequence
    return found


def _map_entry(name: str, entry: Any) -> TrustBundle:
    try:
        trust_domain = TrustDomain(name)
    except InvalidTrustDomain as e:
        raise InvalidBundle("not a bundle map", why=str(e), fix=e.fix) from e
    if not isinstance(entry, dict):
        raise InvalidBundle("not a bundle map", why=f"the bundle of {name} is no JSON object")
    return TrustBundle(trust_domain, *_authorities(entry), document.sequence(entry))
