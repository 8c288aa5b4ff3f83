"""What is taken from a CSR: the public key, once its owner's signature is checked, and - for minting - what it asks.

Owns: parsing within bounds, refusing unsuitable keys before any signature is computed, the self-signature. Does not
own: whether what it asks for is granted; outside minting nothing but the key is even looked at.

Invariants: raises a `CsrError` and nothing else, whatever the bytes. A key too big to be issued to is refused before it
costs us a verification.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from livery.errors import Kind, LiveryError
from livery.identity.certificates import MAX_LEAF_RSA_BITS, key_fault
from livery_ca.certificates.algorithm import PublicKey

MAX_CSR_BYTES = 64 * 1024
_FAULTS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class CsrError(LiveryError):
    """The root of what is wrong with a CSR."""

    code = "csr"
    kind = Kind.INVALID


class CsrMalformed(CsrError):
    """The bytes are no PKCS #10 request."""

    code = "csr_malformed"


class CsrKeyRefused(CsrError):
    """Its key is of a type or size we do not issue to."""

    code = "csr_key_refused"


class CsrSignatureInvalid(CsrError):
    """It is not signed by the key it holds."""

    code = "csr_signature_invalid"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A CSR whose owner holds the key. All but `public_key` is the owner's wish and no more."""

    public_key: PublicKey
    subject: x509.Name
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]


def read_csr(der: bytes) -> CertificateRequest:
    """1. bounds  2. parse  3. the key  4. its signature  5. what is asked. Raises a `CsrError`."""
    if len(der) > MAX_CSR_BYTES:  # 1
        raise CsrMalformed("malformed CSR", why=f"{len(der)} bytes are more than {MAX_CSR_BYTES}")
    try:
        request = x509.load_der_x509_csr(der)  # 2
        key = request.public_key()
    except _FAULTS as cause:
        raise _malformed(cause) from cause
    public_key = _suitable(key)  # 3
    _check_signature(request)  # 4
    try:
        uris, dns_names = _names(request)  # 5
        return CertificateRequest(public_key, request.subject, uris, dns_names)
    except _FAULTS as cause:
        raise _malformed(cause) from cause


def _suitable(key: object) -> PublicKey:
    fault = key_fault(key, max_rsa_bits=MAX_LEAF_RSA_BITS)
    if fault or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        fix = "use an EC key on P-256 or P-384, or RSA of 2048 to 4096 bits"
        raise CsrKeyRefused("the CSR's key is refused", why=fault, fix=fix)
    return key


def _check_signature(request: x509.CertificateSigningRequest) -> None:
    try:
        valid = request.is_signature_valid
    except (InvalidSignature, *_FAULTS):
        valid = False
    if not valid:
        raise CsrSignatureInvalid("invalid CSR signature", why="it is not signed by the key it holds")


def _names(request: x509.CertificateSigningRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    uris = san.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uris), tuple(san.get_values_for_type(x509.DNSName))


def _malformed(cause: BaseException) -> CsrMalformed:
    return CsrMalformed("malformed CSR", why=(str(cause).splitlines() or [type(cause).__name__])[0][:200])
