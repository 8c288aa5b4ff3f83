"""Certificates as bytes: reading a concatenation of DER or a PEM file, and reading fields without surprises.

Owns: the bounds on what is read from a stranger, and turning every failure of the X.509 parser into `Unreadable`.
Does not own: what the certificates mean (`x509_svid`, `bundle`) or whether they are true (`verify`).

Invariant: these functions raise `Unreadable` and nothing else, whatever the bytes. The parser below reads lazily: names
and times are therefore tried when a certificate is read, and extensions and keys, which may still fail when looked
into, are always looked at through this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
MIN_RSA_BITS = 2048
MAX_LEAF_RSA_BITS = 4096
MAX_AUTHORITY_RSA_BITS = 8192  # verifying costs the square of the size, and a stranger chooses when
MAX_RSA_EXPONENT = 2**31 - 1  # as Go's library: one as long as the modulus makes verifying as slow as signing

MAX_NAME_CHECKS = 10_000  # of a name against a name constraint, in a chain that nobody has vouched for yet

_PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"
_FAULTS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # a serial that is not positive, where warnings are errors
)

Extension = TypeVar("Extension", bound=x509.ExtensionType)


class Unreadable(Exception):
    """The bytes are no certificates. Never leaves this package: callers turn it into their own error."""


class Reader(Protocol):
    """A way to read certificates from bytes: `read_der` or `read_pem`."""

    def __call__(self, data: bytes, *, max_bytes: int, max_count: int) -> tuple[x509.Certificate, ...]:
        """Read at least one certificate."""
        ...


def read_der(data: bytes, *, max_bytes: int, max_count: int) -> tuple[x509.Certificate, ...]:
    """Read certificates from concatenated DER, at least one and all of the bytes."""
    if len(data) > max_bytes:
        raise Unreadable(f"{len(data)} bytes are more than {max_bytes}")
    found: list[x509.Certificate] = []
    rest = memoryview(data)
    while rest:
        if len(found) == max_count:
            raise Unreadable(f"more than {max_count} certificates")
        size = _der_size(rest)
        found.append(_load(bytes(rest[:size])))
        rest = rest[size:]
    if not found:
        raise Unreadable("there is no certificate")
    return tuple(found)


def read_pem(data: bytes, *, max_bytes: int, max_count: int) -> tuple[x509.Certificate, ...]:
    """Read every CERTIFICATE block of a PEM text, at least one; text around the blocks is ignored."""
    if len(data) > max_bytes:
        raise Unreadable(f"{len(data)} bytes are more than {max_bytes}")
    blocks = data.count(_PEM_BEGIN)
    if not 1 <= blocks <= max_count:
        raise Unreadable(f"it has {blocks} CERTIFICATE blocks, not 1 to {max_count}")
    try:
        found = tuple(_looked_into(c) for c in x509.load_pem_x509_certificates(data))
    except _FAULTS as e:
        raise Unreadable(f"it is no certificate: {str(e)[:200]}") from e
    if len(found) != blocks:  # the parser passes over a block without an end
        raise Unreadable("a CERTIFICATE block is broken off")
    return found


def extension(cert: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """The extension's value, or None when the certificate does not have it."""
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except _FAULTS as e:
        raise Unreadable(f"its extensions cannot be read: {str(e)[:200]}") from e


def public_key(cert: x509.Certificate) -> object:
    """The certificate's public key, of whatever type."""
    try:
        return cert.public_key()
    except _FAULTS as e:
        raise Unreadable(f"its public key cannot be read: {str(e)[:200]}") from e


def key_fault(key: object, *, max_rsa_bits: int) -> str:
    """Why we refuse keys like this one, or an empty text when we do not."""
    match key:
        case ec.EllipticCurvePublicKey() | ec.EllipticCurvePrivateKey():
            return "" if isinstance(key.curve, CURVES) else f"the curve {key.curve.name} is not P-256, P-384 or P-521"
        case rsa.RSAPublicKey() | rsa.RSAPrivateKey():
            return _rsa_fault(key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key, max_rsa_bits)
        case ed25519.Ed25519PublicKey() | ed25519.Ed25519PrivateKey():
            return "Ed25519 is not among the key types we verify"
        case _:
            return "its key is neither EC nor RSA"


def _rsa_fault(key: rsa.RSAPublicKey, max_bits: int) -> str:
    if not MIN_RSA_BITS <= key.key_size <= max_bits:
        return f"RSA of {key.key_size} bits is not within {MIN_RSA_BITS} and {max_bits}"
    return "" if key.public_numbers().e <= MAX_RSA_EXPONENT else "RSA with a public exponent of more than 31 bits"


def names_fault(chain: Sequence[x509.Certificate]) -> str:
    """Why a chain costs too much: path builders compare names with name constraints before any signature."""
    try:
        constraints = sum(map(_count_constraints, chain))
        names = sum(map(_count_names, chain)) if constraints else 0  # nearly every chain has none
    except Unreadable as e:
        return str(e)
    fits = names * constraints <= MAX_NAME_CHECKS
    return "" if fits else f"{names} names under {constraints} name constraints are more than we compare"


def _count_names(cert: x509.Certificate) -> int:
    return len(extension(cert, x509.SubjectAlternativeName) or ())


def _count_constraints(cert: x509.Certificate) -> int:
    found = extension(cert, x509.NameConstraints)
    return len(found.permitted_subtrees or ()) + len(found.excluded_subtrees or ()) if found else 0


def key_bytes(cert: x509.Certificate) -> bytes:
    """The public key of an authority's certificate as DER, to compare: equal bytes are equal keys."""
    return cert.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def der(cert: x509.Certificate) -> bytes:
    """The certificate as DER."""
    return cert.public_bytes(Encoding.DER)


def _load(data: bytes) -> x509.Certificate:
    try:
        return _looked_into(x509.load_der_x509_certificate(data))
    except _FAULTS as e:
        raise Unreadable(f"it is no certificate: {str(e)[:200]}") from e


def _looked_into(cert: x509.Certificate) -> x509.Certificate:
    """The certificate, when the fields that every certificate has can be read: a property cannot say `Unreadable`."""
    if cert.serial_number <= 0:  # RFC 5280 4.1.2.2
        raise Unreadable("its serial number is not positive")
    _ = cert.subject, cert.issuer, cert.not_valid_before_utc, cert.not_valid_after_utc
    return cert


def _der_size(data: memoryview) -> int:
    """How many bytes the DER value at the front says it takes, header included (X.690 8.1.3).

    Only where to cut: whether it is DER, whole and no longer than that, the reader of the piece finds out.
    """
    first = data[1] if len(data) > 1 else 0
    width = first & 0x7F if first >= 0x80 else 0
    return 2 + width + (int.from_bytes(data[2 : 2 + width], "big") if width else first)
