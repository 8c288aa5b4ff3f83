"""Lint: for each rule a certificate that breaks it, and a sound one that breaks none.

A twist changes the parts of a sound certificate, or the plan it is held against; the rule named must then speak. A test
holds the table against the rules, so that none is without its negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from livery.identity import SpiffeId, TrustDomain
from livery_ca.certificates import assemble, encoding, profile
from livery_ca.certificates.assemble import SigningParty, ThrowAwayKeys
from livery_ca.certificates.draft import Draft, Window
from livery_ca.certificates.lint import CA_RULES, LEAF_RULES, LintRefused, lint_ca, lint_leaf
from livery_ca.certificates.profile import BACKDATE, CaPlan, LeafPlan, Profile
from tests.fakes.clock import START
from tests.pki import new_key

TD = TrustDomain("example.org")
HOUR = timedelta(hours=1)
SIGNING_KEY = new_key("P-256")
OTHER_KEY = new_key("P-256").public_key()
CA_PLAN = CaPlan(7, TD, SIGNING_KEY.public_key(), profile.ca_subject(7), START - BACKDATE, START + 24 * HOUR)
WINDOW = Window(CA_PLAN.not_before, CA_PLAN.not_after)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
URI, SAN = x509.UniformResourceIdentifier, x509.SubjectAlternativeName
EMPTY = x509.Name([])


@dataclass
class Parts:
    """What a certificate is built from, to be twisted."""

    plan: Any
    issuer: SigningParty
    window: Window | None = WINDOW
    serial: int = 0
    subject: x509.Name = EMPTY
    issuer_name: x509.Name = EMPTY
    key: Any = None
    not_before: Any = None
    not_after: Any = None
    hash: Any = field(default_factory=hashes.SHA256)
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]] = field(default_factory=dict)
    bytes_twist: Callable[[bytes], bytes] | None = None

    def put(self, value: x509.ExtensionType, *, critical: bool) -> None:
        self.extensions[type(value)] = (value, critical)

    def drop(self, kind: type[x509.ExtensionType]) -> None:
        del self.extensions[kind]

    def flip(self, kind: type[x509.ExtensionType]) -> None:
        value, critical = self.extensions[kind]
        self.extensions[kind] = (value, not critical)

    def draft(self) -> Draft[Any]:
        builder = x509.CertificateBuilder(
            self.issuer_name, self.subject, self.key, self.serial, self.not_before, self.not_after
        )
        for value, critical in self.extensions.values():
            builder = builder.add_extension(value, critical)
        certificate = builder.sign(new_key("P-256"), self.hash)
        if self.bytes_twist is not None:
            certificate = x509.load_der_x509_certificate(self.bytes_twist(certificate.public_bytes(Encoding.DER)))
        return Draft.of(certificate, self.plan, self.issuer, self.window)


def parts_of(certificate: x509.Certificate, plan: LeafPlan | CaPlan, issuer: SigningParty) -> Parts:
    """A sound certificate, taken apart."""
    return Parts(
        plan=plan,
        issuer=issuer,
        serial=certificate.serial_number,
        subject=certificate.subject,
        issuer_name=certificate.issuer,
        key=certificate.public_key(),
        not_before=certificate.not_valid_before_utc.replace(tzinfo=None),
        not_after=certificate.not_valid_after_utc.replace(tzinfo=None),
        extensions={type(e.value): (e.value, e.critical) for e in certificate.extensions},
    )


def ca_parts() -> Parts:
    issuer = SigningParty.self_signed(CA_PLAN)
    parts = parts_of(assemble.draft_ca(CA_PLAN, issuer, ThrowAwayKeys()), CA_PLAN, issuer)
    parts.window = None
    return parts


def leaf_parts() -> Parts:
    root = assemble.draft_ca(CA_PLAN, SigningParty.self_signed(CA_PLAN), ThrowAwayKeys())
    plan = LeafPlan(
        profile=Profile.WORKLOAD,
        serial=9,
        spiffe_id=SpiffeId.of(TD, "/w"),
        public_key=new_key("P-256").public_key(),
        subject=profile.LEAF_NAME,
        dns_names=("a.example.org",),
        not_before=START - BACKDATE,
        not_after=START + HOUR,
    )
    issuer = SigningParty.of(root)
    return parts_of(assemble.draft_leaf(plan, issuer, ThrowAwayKeys()), plan, issuer)


def sans(*names: x509.GeneralName) -> SAN:
    return SAN(names)


def usage(like: x509.KeyUsage, **changes: bool) -> x509.KeyUsage:
    bits = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    known = {bit: getattr(like, bit) for bit in (*bits, "key_cert_sign", "crl_sign")}
    return x509.KeyUsage(**{**known, "encipher_only": False, "decipher_only": False, **changes})


def plan(**changes: Any) -> Callable[[Parts], None]:
    """Held against another plan, with the certificate as it is."""

    def twist(parts: Parts) -> None:
        parts.plan = replace(parts.plan, **changes)

    return twist


def part(name: str, value: object) -> Callable[[Parts], None]:
    return lambda parts: setattr(parts, name, value)


def ext(value: x509.ExtensionType, *, critical: bool = False) -> Callable[[Parts], None]:
    return lambda parts: parts.put(value, critical=critical)


def drop(kind: type[x509.ExtensionType]) -> Callable[[Parts], None]:
    return lambda parts: parts.drop(kind)


def flip(kind: type[x509.ExtensionType]) -> Callable[[Parts], None]:
    return lambda parts: parts.flip(kind)


def serial(number: int) -> Callable[[Parts], None]:
    """Planned and built with this serial number. (The builder refuses greater ones itself.)"""

    def twist(parts: Parts) -> None:
        parts.plan, parts.serial = replace(parts.plan, serial=number), number

    return twist


def as_version_1(der: bytes) -> bytes:
    """Without the version and the extensions (RFC 5280 4.1.2.1): what a version 1 certificate is."""
    certificate = x509.load_der_x509_certificate(der)
    tbs = certificate.tbs_certificate_bytes
    content = tbs[4:]  # the header of a TBS of 256 to 65535 bytes
    assert content[:5] == bytes.fromhex("a003020102")
    start = _extensions_at(content)
    body = content[5:start]
    rest = der[4 + len(tbs) :]
    return encoding.value(encoding.SEQUENCE, encoding.value(encoding.SEQUENCE, body) + rest)


def _extensions_at(content: bytes) -> int:
    """Where the [3] of the extensions begins: the last element of the TBS."""
    position = 0
    while position < len(content):
        start, first = position, content[position + 1]
        width = first & 0x7F if first & 0x80 else 0
        size = int.from_bytes(content[position + 2 : position + 2 + width], "big") if width else first
        position += 2 + width + size
        if content[start] == 0xA3:
            return start
    raise AssertionError("no extensions")


COMMON: list[tuple[str, Callable[[Parts], None]]] = [
    ("version_is_3", part("bytes_twist", as_version_1)),
    ("serial_is_positive_and_fits", part("serial", 8)),
    ("serial_is_positive_and_fits", serial(2**159)),
    ("signature_algorithm_is_the_issuers", part("hash", hashes.SHA384())),
    ("issuer_is_named_exactly", part("issuer_name", NAME)),
    ("subject_is_as_planned", part("subject", NAME)),
    ("key_is_as_planned", part("key", OTHER_KEY)),
    ("subject_key_identifier_is_the_keys", ext(x509.SubjectKeyIdentifier(b"x" * 20))),
    ("subject_key_identifier_is_the_keys", flip(x509.SubjectKeyIdentifier)),
    ("subject_key_identifier_is_the_keys", drop(x509.SubjectKeyIdentifier)),
    ("authority_key_identifier_is_the_issuers", ext(x509.AuthorityKeyIdentifier(b"x" * 20, None, None))),
    ("authority_key_identifier_is_the_issuers", ext(x509.AuthorityKeyIdentifier(b"x" * 20, None, None), critical=True)),
    ("validity_is_as_planned", plan(not_after=START + 2 * HOUR)),
    ("validity_is_as_planned", plan(not_before=START)),
    ("validity_lies_within_the_issuers", part("window", Window(WINDOW.not_before, START))),
    ("validity_lies_within_the_issuers", part("window", Window(START, WINDOW.not_after))),
    ("alternative_name_is_critical_when_the_subject_is_empty", flip(SAN)),
    ("alternative_name_is_critical_when_the_subject_is_empty", part("subject", EMPTY)),
]
LEAF = [
    ("lifetime_is_worth_issuing", part("not_after", (START - BACKDATE + timedelta(seconds=9)).replace(tzinfo=None))),
    ("extensions_are_the_leafs_and_no_others", ext(x509.OCSPNoCheck())),
    (
        "extensions_are_the_leafs_and_no_others",
        ext(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")),
    ),
    ("extensions_are_the_leafs_and_no_others", drop(x509.ExtendedKeyUsage)),
    ("one_uri_names_the_spiffe_id", ext(sans(URI("spiffe://example.org/w"), URI("spiffe://example.org/v")))),
    ("one_uri_names_the_spiffe_id", ext(sans(URI("spiffe://example.org/w"), URI("https://example.org/")))),
    ("one_uri_names_the_spiffe_id", ext(sans(URI("spiffe://example.org/v")))),
    ("one_uri_names_the_spiffe_id", ext(sans(x509.DNSName("a.example.org")))),
    ("one_uri_names_the_spiffe_id", drop(SAN)),
    ("leaf_id_has_a_path", plan(spiffe_id=SpiffeId(TD))),
    ("leaf_id_is_of_its_profile", plan(spiffe_id=SpiffeId.of(TD, "/spire/agent/x"))),
    ("leaf_id_is_of_its_profile", plan(profile=Profile.AGENT)),
    ("leaf_id_is_of_its_profile", plan(profile=Profile.SERVER)),
    ("alternative_names_are_the_planned_ones", plan(dns_names=())),
    ("alternative_names_are_the_planned_ones", drop(SAN)),
    (
        "alternative_names_are_the_planned_ones",
        ext(sans(URI("spiffe://example.org/w"), x509.DNSName("a.example.org"), x509.RFC822Name("a@example.org"))),
    ),
    ("dns_names_are_well_formed", plan(dns_names=("a..org",))),
    ("dns_names_are_well_formed", plan(dns_names=("a.org", "a.org"))),
    ("dns_names_are_well_formed", plan(dns_names=(".".join(["a" * 63] * 4),))),
    ("leaf_is_no_ca", ext(x509.BasicConstraints(ca=True, path_length=None), critical=True)),
    ("leaf_is_no_ca", flip(x509.BasicConstraints)),
    ("leaf_is_no_ca", drop(x509.BasicConstraints)),
    ("leaf_key_usage_is_exact", ext(usage(profile.LEAF_KEY_USAGE, key_cert_sign=True), critical=True)),
    ("leaf_key_usage_is_exact", ext(usage(profile.LEAF_KEY_USAGE, digital_signature=False), critical=True)),
    ("leaf_key_usage_is_exact", flip(x509.KeyUsage)),
    ("leaf_key_usage_is_exact", drop(x509.KeyUsage)),
    ("leaf_serves_and_calls", ext(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))),
    ("leaf_serves_and_calls", ext(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]))),
    ("leaf_serves_and_calls", drop(x509.ExtendedKeyUsage)),
    ("leaf_key_is_strong", plan(public_key=new_key("rsa-1024").public_key())),
    ("leaf_key_is_strong", plan(public_key=new_key("secp256k1").public_key())),
    ("leaf_key_is_not_the_issuers", plan(public_key=SIGNING_KEY.public_key())),
]
CA = [
    ("extensions_are_the_cas_and_no_others", ext(profile.LEAF_EXTENDED_KEY_USAGE)),
    ("extensions_are_the_cas_and_no_others", ext(x509.NameConstraints([URI("example.org")], None), critical=True)),
    ("one_uri_names_the_trust_domain", ext(sans(URI("spiffe://other.org")))),
    ("one_uri_names_the_trust_domain", ext(sans(URI("spiffe://example.org"), URI("spiffe://other.org")))),
    ("one_uri_names_the_trust_domain", plan(trust_domain=TrustDomain("other.org"))),
    ("ca_is_a_ca", ext(profile.LEAF_CONSTRAINTS, critical=True)),
    ("ca_is_a_ca", flip(x509.BasicConstraints)),
    ("ca_key_usage_is_exact", ext(usage(profile.CA_KEY_USAGE, digital_signature=True), critical=True)),
    ("ca_key_usage_is_exact", ext(usage(profile.CA_KEY_USAGE, key_cert_sign=False), critical=True)),
    ("ca_key_is_strong", plan(public_key=new_key("rsa-1024").public_key())),
]


def findings(lint: Callable[[Draft[Any]], None], draft: Draft[Any]) -> set[str]:
    """The names of the rules that spoke."""
    with pytest.raises(LintRefused) as refusal:
        lint(draft)
    assert refusal.value.why
    return {finding.partition(":")[0] for finding in refusal.value.findings}


def test_a_sound_leaf_and_a_sound_ca_break_no_rule() -> None:
    lint_leaf(leaf_parts().draft())
    lint_ca(ca_parts().draft())


@pytest.mark.parametrize(("rule", "twist"), COMMON + LEAF)
def test_a_leaf_that_breaks_a_rule_is_refused_by_it(rule: str, twist: Callable[[Parts], None]) -> None:
    parts = leaf_parts()
    twist(parts)
    assert rule in findings(lint_leaf, parts.draft())


@pytest.mark.parametrize(("rule", "twist"), COMMON + CA)
def test_a_ca_that_breaks_a_rule_is_refused_by_it(rule: str, twist: Callable[[Parts], None]) -> None:
    parts = ca_parts()
    twist(parts)
    assert rule in findings(lint_ca, parts.draft())


def test_every_rule_has_its_negative() -> None:
    assert {rule for rule, _ in COMMON + LEAF} == {rule.__name__ for rule in LEAF_RULES}
    assert {rule for rule, _ in COMMON + CA} == {rule.__name__ for rule in CA_RULES}


def test_every_rule_cites_what_it_enforces() -> None:
    """By a section of a standard, or by saying that it is ours (or SPIRE's)."""
    for rule in (*LEAF_RULES, *CA_RULES):
        words = rule.__doc__ or ""
        assert words.startswith(("RFC ", "X509-SVID ", "Ours", "SPIRE's", "As for leaves")), rule.__name__


def test_a_refusal_names_every_fault_at_once() -> None:
    parts = leaf_parts()
    parts.flip(x509.KeyUsage)
    parts.flip(x509.BasicConstraints)
    assert findings(lint_leaf, parts.draft()) == {"leaf_key_usage_is_exact", "leaf_is_no_ca"}


def test_an_rsa_key_with_a_strange_exponent_is_refused() -> None:
    """Small or even ones are weak, huge ones make every verification slow."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    modulus = new_key("rsa-2048").public_key().public_numbers().n
    for exponent in (3, 2**33 + 1):
        parts = leaf_parts()
        parts.plan = replace(parts.plan, public_key=rsa.RSAPublicNumbers(exponent, modulus).public_key())
        assert "leaf_key_is_strong" in findings(lint_leaf, parts.draft())


def test_a_draft_says_what_will_be_signed_byte_for_byte_whatever_the_curve() -> None:
    """The throw-away key is P-256; the TBS is that of a P-384 authority signing with SHA-384."""
    authority = new_key("P-384")
    issuer = SigningParty(NAME, authority.public_key(), None)
    leaf = leaf_parts().plan
    drafted = assemble.draft_leaf(leaf, issuer, ThrowAwayKeys()).tbs_certificate_bytes
    signature = authority.sign(drafted, ec.ECDSA(hashes.SHA384()))
    final = x509.load_der_x509_certificate(assemble.join(drafted, issuer, signature))
    assert final.tbs_certificate_bytes == drafted
    assert isinstance(final.signature_hash_algorithm, hashes.SHA384)
    authority.public_key().verify(final.signature, drafted, ec.ECDSA(hashes.SHA384()))
