"""Rules for CA certificates (X509-SVID 3.2 and 4).

Owns: what a signing certificate must and must not say. Does not own: what every certificate must (`common`).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from livery.identity import SpiffeId
from livery.identity.certificates import MAX_AUTHORITY_RSA_BITS
from livery_ca.certificates.draft import Draft
from livery_ca.certificates.profile import CaPlan
from livery_ca.certificates.rules.common import extension_fault, strength_fault, uri_fault, usage_fault

_USAGE = frozenset({"key_cert_sign", "crl_sign"})
_EXTENSIONS = frozenset(
    {
        ExtensionOID.KEY_USAGE,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


def extensions_are_the_cas_and_no_others(draft: Draft[CaPlan]) -> str:
    """X509-SVID 4.2, 4.4: no name constraints, no extended key usage on signing certificates; and nothing unasked."""
    expected = _EXTENSIONS
    if draft.issuer.key_identifier is None:
        expected = expected - {ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
    return extension_fault(draft, expected)


def one_uri_names_the_trust_domain(draft: Draft[CaPlan]) -> str:
    """X509-SVID 3.2: a signing certificate is itself an SVID; its ID has no path and is in its own trust domain."""
    return uri_fault(draft, str(SpiffeId(draft.plan.trust_domain)))


def ca_is_a_ca(draft: Draft[CaPlan]) -> str:
    """X509-SVID 4.1: cA is true, critical (RFC 5280 4.2.1.9)."""
    value, critical = draft.extension(x509.BasicConstraints)
    return "" if value is not None and critical and value.ca else "it is not a CA, or not critically so"


def ca_key_usage_is_exact(draft: Draft[CaPlan]) -> str:
    """X509-SVID 4.3: critical; keyCertSign and cRLSign, nothing that authenticates."""
    return usage_fault(draft, _USAGE)


def ca_key_is_strong(draft: Draft[CaPlan]) -> str:
    """As for leaves, and no RSA so big that verifying it is an attack."""
    return strength_fault(draft.plan.public_key, MAX_AUTHORITY_RSA_BITS)
