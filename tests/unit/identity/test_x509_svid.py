"""X509-SVIDs and their leaf rules: the rows X509-1 to X509-11 and X509-13 of docs/conformance.md.

Many of them are duties of an issuer. Here stands what the value types accept and refuse of those; that our authority
keeps them is shown by its own tests, tests/unit/ca.
"""

from __future__ import annotations

import ipaddress
import warnings
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from livery.identity import (
    BundleMap,
    InvalidBundle,
    InvalidX509Svid,
    SpiffeId,
    TrustBundle,
    UntrustedX509Svid,
    X509Authority,
    X509Svid,
    leaf_id,
    parse_chain,
    verify_x509,
)
from tests.pki import (
    BOTH_USES,
    HOUR,
    LEAF_USAGE,
    NOW,
    SOUND,
    CertifiableKey,
    TestCa,
    Twist,
    new_key,
    unknown_curve,
    unreadable_name,
    unreadable_san,
    usage,
    year_zero,
)

CA = TestCa("example.org")
BUNDLES = BundleMap.of(CA.bundle())
OURS = "spiffe://example.org/a"


def leaf_of(twist: Twist = SOUND, path: str = "/a") -> x509.Certificate:
    return CA.issue_chain(path, twist)[0]


def refused(cert: x509.Certificate) -> str:
    """Why the leaf rules refuse the certificate; `verify_x509` must refuse it too, though a trusted CA signed it."""
    with pytest.raises(InvalidX509Svid) as caught:
        leaf_id(cert)
    with pytest.raises(InvalidX509Svid):
        verify_x509([cert], BUNDLES, NOW)
    return str(caught.value)


def accepted(twist: Twist) -> None:
    cert = leaf_of(twist)
    assert str(leaf_id(cert)) == OURS
    assert str(verify_x509([cert], BUNDLES, NOW).id) == OURS


def test_X509_1_the_one_uri_san_is_the_id_and_other_san_types_may_stand_beside_it() -> None:
    others = [
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
        x509.RFC822Name("a@example.org"),
        x509.DirectoryName(x509.Name([])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
    ]
    accepted(Twist(dns_names=["a.example.org", "localhost"], other_names=others))


def test_X509_1_a_leaf_without_a_uri_san_is_refused() -> None:
    assert "0 URI SANs" in refused(leaf_of(Twist(uris=[], dns_names=["example.org"])))
    assert "0 URI SANs" in refused(leaf_of(Twist(san=False, subject="a")))


@pytest.mark.parametrize(
    "second",
    ["spiffe://example.org/b", OURS, "spiffe://partner.test/a", "https://example.org", "urn:x", "not a uri"],
)
def test_X509_2_a_leaf_with_more_than_one_uri_san_of_any_scheme_is_refused(second: str) -> None:
    assert "2 URI SANs" in refused(leaf_of(Twist(uris=[OURS, second])))
    assert "2 URI SANs" in refused(leaf_of(Twist(uris=[second, OURS])))


def test_X509_3_a_leaf_whose_id_has_no_path_is_refused() -> None:
    assert "names an authority" in refused(leaf_of(path=""))


def test_X509_4_a_leaf_without_a_subject_and_with_a_critical_san_is_accepted() -> None:
    cert = leaf_of()
    assert not cert.subject.rdns
    assert cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    accepted(SOUND)


@pytest.mark.parametrize(("subject", "critical"), [("", False), ("orders", False), ("orders", True)])
def test_X509_4_how_critical_the_san_is_concerns_the_issuer_and_no_validator(subject: str, *, critical: bool) -> None:
    accepted(Twist(subject=subject, san_critical=critical))


def test_X509_5_a_leaf_must_not_be_a_ca_and_a_missing_constraint_means_it_is_none() -> None:
    assert "CA certificate" in refused(leaf_of(Twist(ca=True)))
    accepted(Twist(ca=None))


def test_X509_5_a_certificate_that_is_no_ca_is_refused_as_an_authority() -> None:
    for not_ca in [leaf_of(), leaf_of(Twist(ca=None)), TestCa(ca=False).certificate]:
        with pytest.raises(InvalidBundle, match="not a CA"):
            X509Authority(not_ca)


def test_X509_5_a_path_length_on_a_signing_certificate_is_allowed_and_enforced() -> None:
    root = TestCa("example.org", path_length=0)
    bundles = BundleMap.of(root.bundle())
    assert verify_x509(root.issue_chain("/a"), bundles, NOW).id == SpiffeId.parse(OURS)
    with pytest.raises(UntrustedX509Svid):
        verify_x509(root.intermediate().issue_chain("/a"), bundles, NOW)


@pytest.mark.parametrize("spiffe_id", [None, "spiffe://example.org", "spiffe://parent.test"])
def test_X509_6_an_authority_may_carry_an_id_without_a_path_or_none(spiffe_id: str | None) -> None:
    """An authority's own ID decides nothing: 3.2 lets it sign for other trust domains, so the bundle alone decides."""
    root = TestCa("example.org", spiffe_id=spiffe_id)
    chain = root.intermediate(spiffe_id=spiffe_id).issue_chain("/a")
    assert str(verify_x509(chain, BundleMap.of(root.bundle()), NOW).id) == OURS


@pytest.mark.parametrize("spiffe_id", ["spiffe://example.org", OURS])
def test_X509_7_a_signing_certificate_does_not_authenticate_even_when_the_bundle_holds_it(spiffe_id: str) -> None:
    root = TestCa("example.org", spiffe_id=spiffe_id)
    intermediate = root.intermediate(spiffe_id=spiffe_id)
    anchors = (X509Authority(root.certificate), X509Authority(intermediate.certificate))
    bundles = BundleMap.of(root.bundle(x509_authorities=anchors))
    for chain in [(root.certificate,), (intermediate.certificate, root.certificate)]:
        with pytest.raises(InvalidX509Svid):
            verify_x509(chain, bundles, NOW)


def test_X509_8_a_leaf_without_key_usage_is_refused_and_its_criticality_is_left_to_the_issuer() -> None:
    assert "no key usage" in refused(leaf_of(Twist(key_usage=None)))
    accepted(Twist(key_usage_critical=False))


@pytest.mark.parametrize(
    "bits",
    [
        {"digital_signature": True, "key_cert_sign": True},
        {"digital_signature": True, "crl_sign": True},
        {"key_cert_sign": True, "crl_sign": True},
    ],
)
def test_X509_9_a_leaf_whose_key_may_sign_certificates_or_crls_is_refused(bits: dict[str, bool]) -> None:
    assert "sign certificates or CRLs" in refused(leaf_of(Twist(key_usage=usage(**bits))))


def test_X509_9_a_leaf_must_be_allowed_digital_signatures_and_may_be_allowed_encipherment_and_agreement() -> None:
    assert "digital signatures" in refused(leaf_of(Twist(key_usage=usage(key_encipherment=True, key_agreement=True))))
    accepted(Twist(key_usage=usage(digital_signature=True)))
    accepted(Twist(key_usage=LEAF_USAGE))


def test_X509_9_a_signing_certificate_whose_key_may_not_sign_certificates_is_no_authority_and_no_intermediate() -> None:
    crippled = usage(crl_sign=True, digital_signature=True)
    with pytest.raises(InvalidBundle, match="may not sign"):
        X509Authority(TestCa("example.org", key_usage=crippled).certificate)
    with pytest.raises(UntrustedX509Svid, match="may not sign certificates"):
        verify_x509(CA.intermediate(key_usage=crippled).issue_chain("/a"), BUNDLES, NOW)


@pytest.mark.parametrize(
    "uses",
    [
        None,
        BOTH_USES,
        [ExtendedKeyUsageOID.SERVER_AUTH],
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        [ExtendedKeyUsageOID.CODE_SIGNING],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    ],
)
def test_X509_10_extended_key_usage_concerns_the_issuer_and_refuses_no_leaf(
    uses: list[x509.ObjectIdentifier] | None,
) -> None:
    """5.2 gives validators no duty here, and services use one SVID both as client and as server."""
    accepted(Twist(extended_uses=uses))
    if uses:
        accepted(Twist(extended_uses=None, extra=[(x509.ExtendedKeyUsage(uses), True)]))
    on_signer = CA.intermediate(extra=[(x509.ExtendedKeyUsage(uses), False)] if uses else ())
    assert str(verify_x509(on_signer.issue_chain("/a"), BUNDLES, NOW).id) == OURS


def test_X509_11_a_chain_under_a_uri_name_constraint_is_refused_rather_than_misread() -> None:
    """The library below cannot evaluate them (RFC 5280 4.2.1.10), and to ignore one would be to widen an authority."""
    allowed = x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None)
    constrained = TestCa("example.org", extra=[(allowed, True)])
    with pytest.raises(UntrustedX509Svid, match="name constraint"):
        verify_x509(constrained.issue_chain("/a"), BundleMap.of(constrained.bundle()), NOW)


@pytest.mark.parametrize(
    ("twist", "path", "reason"),
    [
        (Twist(ca=True), "/a", "CA certificate"),
        (Twist(key_usage=usage(digital_signature=True, key_cert_sign=True)), "/a", "sign certificates"),
        (Twist(key_usage=usage(digital_signature=True, crl_sign=True)), "/a", "sign certificates or CRLs"),
        (Twist(uris=["https://example.org/a"]), "/a", "spiffe://"),
        (Twist(uris=["SPIFFE://example.org/a"]), "/a", "spiffe://"),
        (Twist(uris=["spiffe://example.org/a/"]), "/a", "slash"),
        (Twist(uris=["spiffe://Example.org/a"]), "/a", "trust domain"),
        (Twist(uris=["spiffe://example.org/a\n"]), "/a", "holds"),
        (Twist(uris=["spiffe://example.org/%61"]), "/a", "holds"),
        (SOUND, "", "authority"),
        (Twist(uris=[OURS, OURS]), "/a", "URI SANs"),
    ],
)
def test_X509_13_every_duty_of_a_validator_refuses_a_leaf_that_a_trusted_authority_signed(
    twist: Twist, path: str, reason: str
) -> None:
    assert reason in refused(leaf_of(twist, path))


@pytest.mark.parametrize("kind", ["secp256k1", "ed25519", "rsa-1024", "rsa-8192", "rsa-slow"])
def test_a_leaf_with_a_key_we_do_not_verify_is_refused(kind: str) -> None:
    assert any(word in refused(leaf_of(Twist(key=new_key(kind)))) for word in ("curve", "Ed25519", "RSA"))


def test_a_leafs_rsa_key_has_4096_bits_at_most() -> None:
    accepted(Twist(key=CertifiableKey(4096)))
    assert "RSA of 4097 bits" in refused(leaf_of(Twist(key=CertifiableKey(4097))))


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "rsa-2048", "rsa-4096"])
def test_a_leaf_with_a_key_of_a_usual_kind_is_accepted(kind: str) -> None:
    accepted(Twist(key=new_key(kind)))


def test_an_svid_survives_the_workload_apis_form_and_pem() -> None:
    svid = CA.intermediate().issue("/a", hint="internal")
    assert X509Svid.from_der(svid.chain_der(), svid.key_der(), "internal") == svid
    assert X509Svid.from_pem(svid.chain_pem(), svid.key_pem(), "internal") == svid
    assert parse_chain(svid.chain_der()) == svid.chain
    assert b"".join(svid.chain_ders()) == svid.chain_der()


def test_an_svid_tells_its_leafs_serial_and_times() -> None:
    svid = CA.issue("/a", ttl=2 * HOUR)
    assert svid.leaf is svid.chain[0]
    assert svid.serial == svid.leaf.serial_number
    assert svid.not_after == NOW + 2 * HOUR
    assert svid.not_before == NOW - timedelta(seconds=10)


def test_a_private_key_that_is_not_the_leafs_is_refused() -> None:
    svid = CA.issue("/a")
    for key in [new_key(), new_key("P-384"), new_key("rsa-2048")]:
        with pytest.raises(InvalidX509Svid, match="private key"):
            X509Svid.of(svid.chain, key)
    with pytest.raises(InvalidX509Svid, match="private key"):
        X509Svid.from_der(svid.chain_der(), CA.issue("/a").key_der())


def test_an_svid_under_another_id_than_its_leafs_cannot_be_made() -> None:
    svid = CA.issue("/a")
    with pytest.raises(InvalidX509Svid, match="does not name"):
        replace(svid, id=SpiffeId.parse("spiffe://example.org/b"))


def test_the_key_shows_in_no_repr_and_no_error() -> None:
    svid = CA.issue("/a")
    secret = svid.key_pem().decode().splitlines()[1]
    assert secret not in repr(svid)
    assert "private_key" not in repr(svid)
    broken = svid.key_pem().replace(b"\n", b"\n!", 1)
    with pytest.raises(InvalidX509Svid) as caught:
        X509Svid.from_pem(svid.chain_pem(), broken)
    assert secret not in str(caught.value) + repr(caught.value) + caught.value.fix
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", ["ed25519", "secp256k1", "rsa-1024"])
def test_a_private_key_of_an_unusual_kind_is_refused(kind: str) -> None:
    key = new_key(kind).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InvalidX509Svid, match="not a usable private key"):
        X509Svid.from_der(CA.issue("/a").chain_der(), key)


def test_an_encrypted_an_empty_and_a_huge_key_are_refused_with_our_error() -> None:
    svid = CA.issue("/a")
    encrypted = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for key in [encrypted, b"", b"\0" * 16_384, svid.chain_pem()]:
        with pytest.raises(InvalidX509Svid, match="cannot be read"):
            X509Svid.from_pem(svid.chain_pem(), key)
    with pytest.raises(InvalidX509Svid, match="more than 16384 bytes"):
        X509Svid.from_pem(svid.chain_pem(), svid.key_pem().ljust(16_385))


def test_an_svid_without_certificates_or_with_too_many_cannot_be_made() -> None:
    svid = CA.issue("/a")
    for chain in [(), svid.chain * 9]:
        with pytest.raises(InvalidX509Svid, match=r"empty|more than 8"):
            X509Svid.of(chain, svid.private_key)
        with pytest.raises(InvalidX509Svid, match=r"empty|more than 8"):
            replace(svid, chain=chain)


def test_a_hint_is_at_most_1024_bytes() -> None:
    svid = CA.issue("/a")
    assert replace(svid, hint="h" * 1024).hint
    with pytest.raises(InvalidX509Svid, match="hint"):
        replace(svid, hint="h" * 1025)
    with pytest.raises(InvalidX509Svid, match="hint"):
        replace(svid, hint="ä" * 513)


def test_two_svids_of_one_chain_are_equal_and_hash_alike_whatever_object_holds_the_key() -> None:
    svid = CA.issue("/a")
    again = X509Svid.from_der(svid.chain_der(), svid.key_der())
    assert again == svid
    assert len({svid, again}) == 1


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\0",
        b"0",
        b"0\x80",
        b"0\x85\0\0\0\0\1",
        b"0\x84\xff\xff\xff\xff",
        b"0\x03\x02\x01\x01",
        b"-----BEGIN CERTIFICATE-----",
        b"\x30" * 1000,
    ],
)
def test_bytes_that_are_no_certificates_are_refused(der: bytes) -> None:
    with pytest.raises(InvalidX509Svid):
        parse_chain(der)


def test_a_chain_with_trailing_bytes_or_a_broken_end_is_refused() -> None:
    der = CA.issue("/a").chain_der()
    for broken in [der + b"\0", der + b"0", der[:-1], der[1:], der + der[:100]]:
        with pytest.raises(InvalidX509Svid):
            parse_chain(broken)


def test_a_chain_is_at_most_eight_certificates_and_64_kilobytes() -> None:
    der = CA.issue("/a").chain_der()
    assert len(parse_chain(der * 8)) == 8
    with pytest.raises(InvalidX509Svid, match="more than 8"):
        parse_chain(der * 9)
    with pytest.raises(InvalidX509Svid, match="65536"):
        parse_chain(der + b"\0" * 65536)
    big = leaf_of(Twist(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\0" * 66_000), False)]))
    with pytest.raises(InvalidX509Svid, match="65536"):
        verify_x509([big], BUNDLES, NOW)


def test_a_pem_text_is_read_past_comments_and_refused_when_broken() -> None:
    svid = CA.issue("/a")
    commented = b"# the leaf\r\n" + svid.chain_pem().replace(b"\n", b"\r\n") + b"# end\n"
    assert X509Svid.from_pem(commented, svid.key_pem()) == svid
    with pytest.raises(InvalidX509Svid, match="9 CERTIFICATE blocks"):
        X509Svid.from_pem(svid.chain_pem() * 9, svid.key_pem())
    with pytest.raises(InvalidX509Svid, match="0 CERTIFICATE blocks"):
        X509Svid.from_pem(svid.key_pem(), svid.key_pem())
    with pytest.raises(InvalidX509Svid, match="131073 bytes are more"):
        X509Svid.from_pem(svid.chain_pem().ljust(131_073), svid.key_pem())
    assert X509Svid.from_pem(svid.chain_pem().ljust(131_072), svid.key_pem()) == svid
    for broken in [b"", b"# nothing", svid.chain_pem()[:-10], svid.chain_pem() * 9, svid.key_pem(), b"A" * 200_000]:
        with pytest.raises(InvalidX509Svid):
            X509Svid.from_pem(broken, svid.key_pem())


def test_a_serial_number_that_is_not_positive_is_refused() -> None:
    der = bytearray(leaf_of(Twist(serial=1)).public_bytes(Encoding.DER))
    at = der.index(bytes.fromhex("020102020101")) + 5  # the version, and the serial behind it
    assert parse_chain(bytes(der))
    for serial in (0, 0x91):
        der[at] = serial
        with pytest.raises(InvalidX509Svid):
            parse_chain(bytes(der))
        with warnings.catch_warnings():  # as in a process where warnings are no errors
            warnings.simplefilter("ignore")
            with pytest.raises(InvalidX509Svid, match=r"not positive|no certificate"):
                parse_chain(bytes(der))


def test_extensions_that_cannot_be_read_are_our_error() -> None:
    der = leaf_of().public_bytes(Encoding.DER)
    san = OURS.encode()
    twice = leaf_of(Twist(san=False, subject="a", extra=[(unreadable_san(), False)]))
    for cert in [twice, parse_chain(der.replace(san, b"\xff" * len(san)))[0]]:
        with pytest.raises(InvalidX509Svid):
            leaf_id(cert)


def test_a_certificate_without_a_readable_name_or_time_is_our_error() -> None:
    begin, end = NOW + 24 * 365 * 50 * HOUR, NOW + 24 * 365 * 60 * HOUR
    lasting = leaf_of(Twist(subject="orders", not_before=begin, not_after=end))
    sound = lasting.public_bytes(Encoding.DER)
    assert parse_chain(sound)
    issuer = CA.name.encode()
    for broken in [
        unreadable_name(lasting),
        sound.replace(issuer, b"\xff" * len(issuer)),
        year_zero(lasting, begin),
        year_zero(lasting, end),
    ]:
        with pytest.raises(InvalidX509Svid, match="no certificate"):
            parse_chain(broken)


def test_an_extension_that_stands_twice_is_refused_wherever_it_stands() -> None:
    """RFC 5280 4.2. Of two alternative names one reader would take the first and another the last."""
    second = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://example.org/admin")])
    stand_in, san_oid = bytes.fromhex("0603551d7f"), bytes.fromhex("0603551d11")
    extra = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.127"), second.public_bytes()), False)]
    leaf, above = CA.intermediate(extra=extra).issue_chain("/a", Twist(extra=extra))
    assert leaf_id(leaf) == SpiffeId.parse(OURS)
    twice = [parse_chain(c.public_bytes(Encoding.DER).replace(stand_in, san_oid))[0] for c in (leaf, above)]
    assert "Duplicate" in refused(twice[0])
    with pytest.raises(InvalidX509Svid, match="an issuer: its extensions cannot be read: Duplicate"):
        verify_x509([leaf, twice[1]], BUNDLES, NOW)
    with pytest.raises(InvalidBundle, match="Duplicate"):
        X509Authority(twice[1])


@pytest.mark.parametrize("name", ["a300", "a500", "83022a03", "8703010203", "860180"])
def test_an_alternative_name_of_a_kind_that_nobody_reads_is_refused(name: str) -> None:
    """Beside the ID: an X.400 address, an EDI party, one without its tag, an IP address of 3 bytes, half a letter."""
    names = bytes.fromhex(f"86{len(OURS):02x}") + OURS.encode() + bytes.fromhex(name)
    san = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, bytes([0x30, len(names)]) + names)
    assert "cannot be read" in refused(leaf_of(Twist(san=False, subject="a", extra=[(san, False)])))


@pytest.mark.parametrize("version", [1, 3, 255])
def test_a_certificate_of_a_version_that_does_not_exist_is_refused(version: int) -> None:
    der = leaf_of().public_bytes(Encoding.DER)
    with pytest.raises(InvalidX509Svid, match="no certificate"):
        parse_chain(der.replace(bytes.fromhex("a003020102"), bytes.fromhex(f"a0030201{version:02x}"), 1))


def test_an_elliptic_key_on_an_unknown_curve_is_our_error() -> None:
    """A public key that names no curve fails when it is looked at, not when the certificate is read."""
    with pytest.raises(InvalidX509Svid, match="cannot be read"):
        leaf_id(parse_chain(unknown_curve(leaf_of()))[0])
    with pytest.raises(InvalidX509Svid, match="an issuer"):
        verify_x509([leaf_of(), *parse_chain(unknown_curve(CA.certificate))], BUNDLES, NOW)


def test_an_empty_bundle_of_our_domain_trusts_nothing() -> None:
    with pytest.raises(UntrustedX509Svid, match=r"no X\.509 authority"):
        verify_x509(CA.issue("/a").chain, BundleMap.of(TrustBundle(CA.trust_domain)), NOW)
