"""The authorities a trust bundle holds: CA certificates, and keys that sign JWT-SVIDs.

Owns: `X509Authority`, `JwtKey` and what may be one. Does not own: their documents (`bundle_document`) or the bundle.

Invariant: an authority that exists may be one; a leaf certificate, a key too weak or a key without an ID never is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from livery.identity import certificates
from livery.identity.certificates import PublicKey, Unreadable
from livery.identity.errors import InvalidBundle


class Marks(NamedTuple):
    """What a verifier may know an authority by. Two trust domains that share one could be taken for each other."""

    key: bytes
    subject: x509.Name
    key_identifier: str


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

    @property
    def marks(self) -> Marks:
        """What it may be known, and mistaken, by."""
        return Marks(certificates.key_bytes(self.certificate), self.certificate.subject, self.subject_key_id)

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
            raise InvalidBundle(f"not a JWT authority: {self.key_id[:50]!a}", why=fault)


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
