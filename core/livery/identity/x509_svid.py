"""X509-SVIDs: a certificate chain whose leaf names one SPIFFE ID, and the private key to prove it (X509-SVID).

Owns: `X509Svid`, reading and writing its forms (DER, PEM, PKCS#8), and the leaf rules (`leaf_id`).
Does not own: whether an authority vouches for the chain (`verify`), or making one (the CA).

Invariants: the leaf of an `X509Svid` fulfils every leaf rule and its key is the leaf's own. The key appears in no
`repr`, no error and no comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from livery.identity import certificates
from livery.identity.certificates import Unreadable
from livery.identity.errors import InvalidSpiffeId, InvalidX509Svid
from livery.identity.spiffe_id import SpiffeId

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

MAX_CHAIN = 8  # certificates, the leaf included
MAX_CHAIN_BYTES = 64 * 1024
MAX_KEY_BYTES = 16 * 1024
MAX_HINT_BYTES = 1024  # Workload API 8


@dataclass(frozen=True, slots=True)
class X509Svid:
    """One X509-SVID with its key. `chain` is leaf first, then intermediates; `hint` is the Workload API's."""

    id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = field(repr=False, compare=False)  # the leaf determines it, see __post_init__
    hint: str = ""

    def __post_init__(self) -> None:
        check_bounds(self.chain)
        if leaf_id(self.chain[0]) != self.id:
            raise InvalidX509Svid("not an X509-SVID", why=f"its leaf does not name {self.id}")
        if self.private_key.public_key() != certificates.public_key(self.chain[0]):
            raise InvalidX509Svid("not an X509-SVID", why="its private key is not the leaf's")
        if len(self.hint.encode("utf-8", "surrogatepass")) > MAX_HINT_BYTES:
            raise InvalidX509Svid("not an X509-SVID", why=f"its hint is longer than {MAX_HINT_BYTES} bytes")

    @classmethod
    def of(cls, chain: Sequence[x509.Certificate], private_key: PrivateKey, hint: str = "") -> Self:
        """Put a chain and its key together."""
        check_bounds(chain)
        return cls(leaf_id(chain[0]), tuple(chain), private_key, hint)

    @classmethod
    def from_der(cls, chain_der: bytes, key_pkcs8: bytes, hint: str = "") -> Self:
        """Read the Workload API's form: concatenated DER, leaf first, and an unencrypted PKCS#8 key."""
        return cls.of(parse_chain(chain_der), _private_key(key_pkcs8, pem=False), hint)

    @classmethod
    def from_pem(cls, chain_pem: bytes, key_pem: bytes, hint: str = "") -> Self:
        """Read a PEM chain, leaf first, and an unencrypted PEM key."""
        try:
            chain = certificates.read_pem(chain_pem, max_bytes=2 * MAX_CHAIN_BYTES, max_count=MAX_CHAIN)
        except Unreadable as e:
            raise InvalidX509Svid("not an X509-SVID", why=str(e)) from e
        return cls.of(chain, _private_key(key_pem, pem=True), hint)

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that names the workload."""
        return self.chain[0]

    @property
    def serial(self) -> int:
        """The leaf's serial number."""
        return self.leaf.serial_number

    @property
    def not_before(self) -> datetime:
        """When the leaf begins to be valid, UTC."""
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """When the leaf ends, UTC. (An issuer's end may come first: see `VerifiedX509Svid.not_after`.)"""
        return self.leaf.not_valid_after_utc

    def chain_ders(self) -> list[bytes]:
        """Each certificate as DER, leaf first."""
        return [certificates.der(c) for c in self.chain]

    def chain_der(self) -> bytes:
        """The chain as concatenated DER, leaf first: the Workload API's form."""
        return b"".join(self.chain_ders())

    def chain_pem(self) -> bytes:
        """The chain as PEM, leaf first."""
        return b"".join(c.public_bytes(Encoding.PEM) for c in self.chain)

    def key_der(self) -> bytes:
        """The private key as unencrypted PKCS#8 DER."""
        return self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_chain(der: bytes) -> tuple[x509.Certificate, ...]:
    """Read a certificate chain from concatenated DER; whether it is an SVID's is for `leaf_id` and `verify_x509`."""
    try:
        return certificates.read_der(der, max_bytes=MAX_CHAIN_BYTES, max_count=MAX_CHAIN)
    except Unreadable as e:
        raise InvalidX509Svid("not a certificate chain", why=str(e)) from e


def check_bounds(chain: Sequence[x509.Certificate]) -> None:
    """Refuse a chain that is empty, too long or too big, before any work is spent on it."""
    if not chain:
        raise InvalidX509Svid("not an X509-SVID", why="the chain is empty")
    if len(chain) > MAX_CHAIN:
        raise InvalidX509Svid("not an X509-SVID", why=f"more than {MAX_CHAIN} certificates")
    if sum(len(certificates.der(c)) for c in chain) > MAX_CHAIN_BYTES:
        raise InvalidX509Svid("not an X509-SVID", why=f"more than {MAX_CHAIN_BYTES} bytes")


def leaf_id(cert: x509.Certificate) -> SpiffeId:
    """The SPIFFE ID of a leaf that keeps every rule for leaves (X509-SVID 2, 4.3, 5.2); time and authority aside."""
    try:
        spiffe_id = _only_uri(cert)
        fault = _constraint_fault(cert) or _usage_fault(cert) or _key_fault(cert)
    except Unreadable as e:
        raise InvalidX509Svid("not an X509-SVID", why=str(e)) from e
    if fault:
        raise InvalidX509Svid(f"not an X509-SVID of {spiffe_id}", why=fault)
    return spiffe_id


def _only_uri(cert: x509.Certificate) -> SpiffeId:
    san = certificates.extension(cert, x509.SubjectAlternativeName)
    uris = san.get_values_for_type(x509.UniformResourceIdentifier) if san else []
    if len(uris) != 1:  # X509-SVID 2: of any scheme, so the count comes before the look
        raise InvalidX509Svid("not an X509-SVID", why=f"it has {len(uris)} URI SANs, not one")
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except InvalidSpiffeId as e:
        raise InvalidX509Svid("not an X509-SVID", why=str(e), fix=e.fix) from e
    if spiffe_id.is_root:  # X509-SVID 5.2
        raise InvalidX509Svid("not an X509-SVID", why=f"{spiffe_id} names an authority, not a workload")
    return spiffe_id


def _constraint_fault(cert: x509.Certificate) -> str:
    # RFC 5280 4.2.1.9: absent means cA=false.
    constraints = certificates.extension(cert, x509.BasicConstraints)
    return "it is a CA certificate" if constraints and constraints.ca else ""


def _usage_fault(cert: x509.Certificate) -> str:
    usage = certificates.extension(cert, x509.KeyUsage)  # X509-SVID 4.3
    if usage is None:
        return "it has no key usage"
    if usage.key_cert_sign or usage.crl_sign:
        return "its key may sign certificates or CRLs"
    return "" if usage.digital_signature else "its key may not make digital signatures"


def _key_fault(cert: x509.Certificate) -> str:
    return certificates.key_fault(certificates.public_key(cert), max_rsa_bits=certificates.MAX_LEAF_RSA_BITS)


def _private_key(data: bytes, *, pem: bool) -> PrivateKey:
    # The parser's own words are not passed on: they may quote what it read.
    if len(data) > MAX_KEY_BYTES:
        raise InvalidX509Svid("not a private key", why=f"more than {MAX_KEY_BYTES} bytes")
    try:
        key = load_pem_private_key(data, None) if pem else load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "it cannot be read"
        raise InvalidX509Svid("not a private key", why=why, fix="give an unencrypted PKCS#8 key") from None
    fault = certificates.key_fault(key, max_rsa_bits=certificates.MAX_LEAF_RSA_BITS)
    if fault or not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidX509Svid("not a usable private key", why=fault)
    return key
