"""Rules for leaf certificates (X509-SVID 3.1 and 4), and for the profile each is of.

Owns: what a leaf must and must not say. Does not own: what every certificate must (`common`).
"""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from livery.identity.certificates import MAX_LEAF_RSA_BITS
from livery_ca.certificates.draft import Draft
from livery_ca.certificates.profile import MIN_LIFETIME, LeafPlan, Profile
from livery_ca.certificates.rules.common import extension_fault, strength_fault, uri_fault, usage_fault

_DNS_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MAX_DNS_NAME = 253  # RFC 1035 2.3.4, written without the final dot
_USAGE = frozenset({"digital_signature", "key_encipherment", "key_agreement"})
_EXTENSIONS = frozenset(
    {
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


def lifetime_is_worth_issuing(draft: Draft[LeafPlan]) -> str:
    """Ours: at least ten seconds; a shorter certificate ends before it is put to use."""
    lifetime = draft.certificate.not_valid_after_utc - draft.certificate.not_valid_before_utc
    return "" if lifetime >= MIN_LIFETIME else f"it would be valid for {lifetime.total_seconds():.0f} s only"


def extensions_are_the_leafs_and_no_others(draft: Draft[LeafPlan]) -> str:
    """Ours: the exact set; a certificate says nothing that nobody decided."""
    return extension_fault(draft, _EXTENSIONS)


def one_uri_names_the_spiffe_id(draft: Draft[LeafPlan]) -> str:
    """X509-SVID 2: exactly one URI SAN, and it is the SPIFFE ID (of at most 2048 bytes, SPIFFE-ID 2.3)."""
    return uri_fault(draft, str(draft.plan.spiffe_id))


def leaf_id_has_a_path(draft: Draft[LeafPlan]) -> str:
    """X509-SVID 3.1: a leaf's SPIFFE ID is not the trust domain's own."""
    return "the SPIFFE ID has no path" if draft.plan.spiffe_id.is_root else ""


def leaf_id_is_of_its_profile(draft: Draft[LeafPlan]) -> str:
    """SPIRE's reserved paths: agents under /spire/agent/, the server at /spire/server, workloads not under /spire."""
    spiffe_id = draft.plan.spiffe_id
    match draft.plan.profile:
        case Profile.AGENT:
            fits = spiffe_id.path.startswith("/spire/agent/")
        case Profile.SERVER:
            fits = spiffe_id.path == "/spire/server"
        case Profile.WORKLOAD | Profile.MINT:
            fits = not spiffe_id.is_reserved
    return "" if fits else f"{spiffe_id} is not an ID of the {draft.plan.profile.value} profile"


def alternative_names_are_the_planned_ones(draft: Draft[LeafPlan]) -> str:
    """RFC 5280 4.2.1.6: the URI and the DNS names that were decided, and no name of another kind."""
    value, _ = draft.extension(x509.SubjectAlternativeName)
    if value is None:
        return "there is no subject alternative name"
    if tuple(value.get_values_for_type(x509.DNSName)) != draft.plan.dns_names:
        return "the DNS names are not the planned ones"
    strange = [type(n).__name__ for n in value if not isinstance(n, x509.DNSName | x509.UniformResourceIdentifier)]
    return f"it has a {strange[0]}" if strange else ""


def dns_names_are_well_formed(draft: Draft[LeafPlan]) -> str:
    """RFC 5280 4.2.1.6, RFC 1034 3.5: letters, digits and hyphens by label, and underscores, which real names have."""
    for name in draft.plan.dns_names:
        labels = name.removeprefix("*.").split(".")
        if len(name) > _MAX_DNS_NAME or not all(_DNS_LABEL.fullmatch(label) for label in labels):
            return f"{name!r} is no DNS name"
    return "" if len(set(draft.plan.dns_names)) == len(draft.plan.dns_names) else "a DNS name stands twice"


def leaf_is_no_ca(draft: Draft[LeafPlan]) -> str:
    """X509-SVID 4.1: cA is false; and no path length with it (RFC 5280 4.2.1.9)."""
    value, critical = draft.extension(x509.BasicConstraints)
    if value is None or not critical:
        return "there are no basic constraints, or they are not critical"
    return "" if not value.ca and value.path_length is None else "it is a CA"


def leaf_key_usage_is_exact(draft: Draft[LeafPlan]) -> str:
    """X509-SVID 4.3: critical; digitalSignature, keyEncipherment, keyAgreement; never keyCertSign or cRLSign."""
    return usage_fault(draft, _USAGE)


def leaf_serves_and_calls(draft: Draft[LeafPlan]) -> str:
    """X509-SVID 4.4: serverAuth and clientAuth, both."""
    value, _ = draft.extension(x509.ExtendedKeyUsage)
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    return "" if value is not None and set(value) == wanted else "it is not for both serving and calling"


def leaf_key_is_strong(draft: Draft[LeafPlan]) -> str:
    """RFC 8603 and NIST SP 800-57: EC on P-256, P-384, P-521 or RSA of 2048 to 4096 bits: what verifiers accept."""
    return strength_fault(draft.plan.public_key, MAX_LEAF_RSA_BITS)


def leaf_key_is_not_the_issuers(draft: Draft[LeafPlan]) -> str:
    """X509-SVID 4.3: signing keys authenticate nobody, so no leaf may have one."""
    return "the key is the issuer's own" if draft.plan.public_key == draft.issuer.public_key else ""
