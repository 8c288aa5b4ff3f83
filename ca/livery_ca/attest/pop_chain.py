"""The certificates of x509pop: read, bounded, verified to the configured authorities, and turned into selectors.

Owns: the order in which a chain is refused (cheapest first) and what its leaf says about the node. Does not own: the
JSON around it (`pop_forms`) or the proof of possession (`x509pop`).

Invariants: no signature is verified before every certificate is known to be within bounds. A node is named after its
certificate's bytes, so a certificate has one form, or two that know of each other (`pop_twin`). Extended key usages are
not looked at (SPIRE: any): a node certificate is any certificate that the operator's authority gave to the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from livery.identity import IdentityError, Selector, TrustDomain
from livery.identity.certificates import MAX_RSA_EXPONENT, names_fault
from livery_ca.attest.attestor import AttestationRefused, MalformedEvidence
from livery_ca.attest.pop_twin import twin_of

FAULTS = (  # what the parser of certificates raises, at once or when something is looked at
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # a serial that is not positive, where warnings are errors
)

LeafKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class ChainLimits:
    """The bounds that keep a stranger from choosing how much we compute."""

    max_intermediates: int = 4
    max_rsa_key_size: int = 8192  # bits


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A leaf that the configured authorities vouch for; `above` leads from its issuer to one of them."""

    leaf: x509.Certificate
    key: LeafKey
    above: tuple[x509.Certificate, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-1 of the leaf's DER in lower hex. A name, not a protection: the chain was verified by its signatures."""
        return _sha1(self.leaf.public_bytes(Encoding.DER))

    @property
    def twin(self) -> str | None:
        """The leaf's fingerprint in its other form, if it has one. (An authority is recognised by all its bytes.)"""
        other = twin_of(self.leaf, self.above[0]) if self.above else None
        return None if other is None else _sha1(other)


def read_chain(ders: Sequence[bytes], limits: ChainLimits) -> tuple[x509.Certificate, ...]:
    """Parse the certificates, leaf first, and refuse keys whose use would cost too much."""
    chain = []
    for number, der in enumerate(ders):
        which = "leaf certificate" if number == 0 else f"intermediate certificate {number - 1}"
        try:
            cert = x509.load_der_x509_certificate(der)
            key = cert.public_key()
            # Read lazily: provoke their failure here and not in the middle of verifying.
            _ = cert.extensions, cert.subject, cert.issuer, cert.not_valid_before_utc, cert.not_valid_after_utc
            if cert.serial_number <= 0:  # RFC 5280 4.1.2.2
                raise ValueError("its serial number is not positive")
            if not der.endswith(b"\x00" + cert.signature):  # X.690 8.6.2.2: before the bits, how many are left out
                raise ValueError("its signature is not of whole bytes")
        except FAULTS as cause:
            raise MalformedEvidence(f"unable to parse {which}", why=str(cause)[:200]) from cause
        if isinstance(key, rsa.RSAPublicKey):
            _check_rsa(key, which, limits)
        chain.append(cert)
    if fault := names_fault(chain):
        raise MalformedEvidence("unable to verify the certificates", why=fault)
    return tuple(chain)


def _check_rsa(key: rsa.RSAPublicKey, which: str, limits: ChainLimits) -> None:
    if key.key_size > limits.max_rsa_key_size:
        raise MalformedEvidence(f"{which} key size too large")
    if key.public_numbers().e > MAX_RSA_EXPONENT:
        raise MalformedEvidence(f"{which} public exponent too large")


def verify_chain(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], at: datetime
) -> NodeCertificate:
    """Verify a chain to one of the authorities (self-signed or not) as of `at`."""
    key = chain[0].public_key()
    if not _signs(chain[0]):
        raise AttestationRefused("certificate not intended for digital signature use")
    if not isinstance(key, LeafKey):
        raise AttestationRefused(f"unsupported public key type {type(key).__name__}")
    verifier = (
        PolicyBuilder()
        .store(Store(list(authorities)))
        .time(at.astimezone(UTC).replace(tzinfo=None))
        .max_chain_depth(len(chain))  # as many as were sent: their number was bounded before they were read
        .extension_policies(ca_policy=_ISSUER, ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        path = verifier.verify(chain[0], list(chain[1:])).chain
    except (VerificationError, *FAULTS) as cause:
        raise AttestationRefused("certificate verification failed", why=str(cause)[:200]) from cause
    return NodeCertificate(chain[0], key, tuple(path[1:]))


def selectors_of(node: NodeCertificate, trust_domain: TrustDomain) -> tuple[Selector, ...]:
    """What the certificate says about its node, in SPIRE's selectors."""
    try:
        return tuple(dict.fromkeys(Selector("x509pop", value) for value in _values(node, trust_domain)))
    except IdentityError as cause:
        raise MalformedEvidence("the certificate holds a name that fits in no selector", why=cause.why) from cause


def _values(node: NodeCertificate, trust_domain: TrustDomain) -> Iterator[str]:
    names = node.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    # Where a subject has several, Go's parser - and so SPIRE - keeps the last.
    if names and names[-1].value:
        yield f"subject:cn:{_text(names[-1].value)}"
    for cert in node.above:
        yield f"ca:fingerprint:{_sha1(cert.public_bytes(Encoding.DER))}"
    serial = f"{node.leaf.serial_number:x}"
    yield f"serialnumber:{serial.zfill(len(serial) + len(serial) % 2)}"
    for name, value in _san_values(node.leaf, f"x509pop://{trust_domain}/").items():
        yield f"san:{name}:{value}"


def _san_values(leaf: x509.Certificate, prefix: str) -> dict[str, str]:
    """`x509pop://<trust domain>/<key>/<value>` as key and value; the value may hold slashes."""
    found: dict[str, str] = {}
    for uri in _uris(leaf):
        if uri.startswith(prefix):
            name, slash, value = unquote(urlsplit(uri).path).strip("/").partition("/")
            if slash:
                found[name] = value
    return found


def _uris(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _signs(leaf: x509.Certificate) -> bool:
    try:
        return leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        return False


def _sha1(der: bytes) -> str:
    return hashlib.sha1(der, usedforsecurity=False).hexdigest()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _is_ca(_policy: object, _cert: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("an issuer is not a CA")


def _signs_certificates(_policy: object, _cert: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer may not sign certificates")


_ISSUER = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_ca)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
)
