"""Rules for every certificate, and the checks that rules for leaves and for CAs share.

Owns: what RFC 5280 asks of any certificate of ours. Does not own: what X509-SVID asks of leaves
(`leaf`) and CAs (`ca`).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ObjectIdentifier

from livery.identity.certificates import key_fault
from livery_ca.certificates.algorithm import PublicKey
from livery_ca.certificates.draft import Draft, Plan
from livery_ca.certificates.profile import SERIAL_BITS

_MAX_URI = 2048  # SPIFFE-ID 2.3
_MIN_EXPONENT, _MAX_EXPONENT = 2**16 + 1, 2**32
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def version_is_3(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.2.1: a certificate with extensions is of version 3."""
    return "" if draft.certificate.version is x509.Version.v3 else f"the version is {draft.certificate.version.name}"


def serial_is_positive_and_fits(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.2.2: a positive integer of at most 20 octets; ours has at most 159 bits, as planned."""
    serial = draft.certificate.serial_number
    if serial != draft.plan.serial:
        return "the serial number is not the planned one"
    return "" if 0 < serial < 2**SERIAL_BITS else "the serial number is not within 1 and 2^159 - 1"


def signature_algorithm_is_the_issuers(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.1.2, 4.1.2.3: the algorithm inside the TBS is the one its signature will be by."""
    is_there = draft.after_serial.startswith(draft.issuer.algorithm.identifier)
    return "" if is_there else "the algorithm in the TBS is not the issuer's"


def issuer_is_named_exactly(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.2.4, 6.1.3 (a)(4): the issuer field is the issuer's subject, byte for byte."""
    # A DER value knows its own length, so one that begins like this is this one.
    is_there = draft.after_serial[len(draft.issuer.algorithm.identifier) :].startswith(draft.issuer.name_der)
    return "" if is_there else "the issuer field is not the issuer's subject"


def subject_is_as_planned(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.2.6: the subject names what was decided."""
    return "" if draft.certificate.subject == draft.plan.subject else "the subject is not the planned one"


def key_is_as_planned(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.2.7: the certificate is for the key that was asked for."""
    return "" if draft.certificate.public_key() == draft.plan.public_key else "the key is not the planned one"


def subject_key_identifier_is_the_keys(draft: Draft[Plan]) -> str:
    """RFC 5280 4.2.1.2 (1): the SHA-1 of the key, not critical."""
    value, critical = draft.extension(x509.SubjectKeyIdentifier)
    if value is None or critical:
        return "there is no subject key identifier, or it is critical"
    expected = x509.SubjectKeyIdentifier.from_public_key(draft.plan.public_key)
    return "" if value == expected else "the subject key identifier is not the key's"


def authority_key_identifier_is_the_issuers(draft: Draft[Plan]) -> str:
    """RFC 5280 4.2.1.1: the issuer's key identifier, not critical; absent where the certificate is its own issuer."""
    value, critical = draft.extension(x509.AuthorityKeyIdentifier)
    if critical:
        return "the authority key identifier is critical"
    return "" if value == draft.issuer.key_identifier else "the authority key identifier is not the issuer's"


def validity_is_as_planned(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.2.5: whole seconds, in order, as decided."""
    start, end = draft.certificate.not_valid_before_utc, draft.certificate.not_valid_after_utc
    if (start, end) != (draft.plan.not_before, draft.plan.not_after):
        return "the validity is not the planned one"
    return "" if start < end else "the validity ends before it begins"


def validity_lies_within_the_issuers(draft: Draft[Plan]) -> str:
    """RFC 5280 6.1.3 (a)(2) holds for every certificate of a path: so a certificate never outlives its issuer."""
    if draft.window is None:
        return ""
    if draft.certificate.not_valid_after_utc > draft.window.not_after:
        return "it would outlive its issuer"
    if draft.certificate.not_valid_before_utc < draft.window.not_before:
        return "it would begin before its issuer"
    return ""


def alternative_name_is_critical_when_the_subject_is_empty(draft: Draft[Plan]) -> str:
    """RFC 5280 4.1.2.6 (X509-SVID 3.1): critical with an empty subject, else not."""
    _, critical = draft.extension(x509.SubjectAlternativeName)
    empty = not draft.certificate.subject.rdns
    if critical is not empty:
        return f"the SAN is {'' if critical else 'not '}critical and the subject is {'' if empty else 'not '}empty"
    return ""


def extension_fault(draft: Draft[Plan], expected: frozenset[ObjectIdentifier]) -> str:
    """How the set of extensions differs from the expected one."""
    found = {extension.oid for extension in draft.certificate.extensions}
    strange = sorted(oid.dotted_string for oid in found ^ expected)
    return f"extensions {', '.join(strange)} are missing or not ours" if strange else ""


def uri_fault(draft: Draft[Plan], wanted: str) -> str:
    """What is wrong with the URI SANs, of which there must be one, and which."""
    value, _ = draft.extension(x509.SubjectAlternativeName)
    uris = value.get_values_for_type(x509.UniformResourceIdentifier) if value is not None else []
    if len(uris) != 1:
        return f"it has {len(uris)} URI SANs, not one"
    if len(uris[0]) > _MAX_URI:
        return f"its URI is longer than {_MAX_URI} bytes"
    return "" if uris[0] == wanted else "its URI is not the planned SPIFFE ID"


def usage_fault(draft: Draft[Plan], wanted: frozenset[str]) -> str:
    """What is wrong with the key usage, which must be critical and exactly this."""
    value, critical = draft.extension(x509.KeyUsage)
    if value is None or not critical:
        return "there is no key usage, or it is not critical"
    found = {bit for bit in _USAGES if getattr(value, bit)}
    return "" if found == wanted else f"the key usage is {', '.join(sorted(found)) or 'empty'}"


def strength_fault(key: PublicKey, max_rsa_bits: int) -> str:
    """Why a key of this type and size is refused."""
    if fault := key_fault(key, max_rsa_bits=max_rsa_bits):
        return fault
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        if not (_MIN_EXPONENT <= exponent < _MAX_EXPONENT and exponent % 2):
            return f"the RSA exponent {exponent} is even or not within 2^16 and 2^32"
    return ""
