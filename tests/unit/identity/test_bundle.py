"""Trust bundles and bundle maps: the rows X509-14, X509-15 and TDB-1 to TDB-9 of docs/conformance.md."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from livery.identity import (
    BundleMap,
    InvalidBundle,
    JwtKey,
    TrustBundle,
    TrustDomain,
    UntrustedJwtSvid,
    UntrustedX509Svid,
    X509Authority,
    verify_jwt,
    verify_x509,
)
from tests.pki import (
    HOUR,
    NOW,
    CertifiableKey,
    TestCa,
    base64url,
    new_key,
    unknown_curve,
    unreadable_name,
    unreadable_san,
    year_zero,
)

CA = TestCa("example.org")
TD = CA.trust_domain
FULL = CA.bundle(sequence=7, refresh_hint=timedelta(minutes=5))


def document(bundle: TrustBundle = FULL) -> Any:
    return json.loads(bundle.to_jwks())


def read(value: Any) -> TrustBundle:
    return TrustBundle.from_jwks(TD, value if isinstance(value, bytes) else json.dumps(value).encode())


def refused(value: Any) -> str:
    with pytest.raises(InvalidBundle) as caught:
        read(value)
    return str(caught.value)


def x509_entry(bundle: TrustBundle = FULL) -> Any:
    return next(k for k in document(bundle)["keys"] if k["use"] == "x509-svid")


def jwt_entry(bundle: TrustBundle = FULL) -> Any:
    return next(k for k in document(bundle)["keys"] if k["use"] == "jwt-svid")


def der_text(ca: TestCa) -> str:
    return base64.b64encode(ca.certificate.public_bytes(Encoding.DER)).decode()


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "rsa-2048", "ed25519"])
def test_X509_14_an_authority_is_published_with_its_key_one_certificate_and_no_kid(kind: str) -> None:
    ca = TestCa("example.org", kind)
    entry = x509_entry(ca.bundle())
    assert entry["use"] == "x509-svid"
    assert "kid" not in entry
    assert [base64.b64decode(c, validate=True) for c in entry["x5c"]] == [ca.certificate.public_bytes(Encoding.DER)]
    parameters = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}[entry["kty"]]
    assert entry.keys() == {"use", "kty", "x5c"} | parameters


def test_X509_14_coordinates_keep_their_leading_zeros() -> None:
    """RFC 7518 6.2.1.2: the full width of the curve, also for the one point in 256 that begins with a zero."""
    while len(format((key := new_key()).public_key().public_numbers().x, "x")) > 62:
        pass
    bundle = TrustBundle(TD, jwt_authorities=(JwtKey("k", key.public_key()),))
    assert len(jwt_entry(bundle)["x"]) == 43
    assert read(bundle.to_jwks()) == bundle


def test_X509_15_an_entry_without_a_certificate_is_ignored() -> None:
    for x5c, more in itertools.product([None, [], ""], [{}, {"x": "!"}, {"y": None}, {"d": "AAAA"}]):
        entry = {k: v for k, v in {**x509_entry(), **more, "x5c": x5c}.items() if v is not None}
        bundle = read({"keys": [entry]})
        assert bundle.x509_authorities == ()
        with pytest.raises(UntrustedX509Svid):
            verify_x509(CA.issue_chain("/a"), BundleMap.of(bundle), NOW)


def test_X509_15_only_the_first_certificate_of_an_entry_counts() -> None:
    other = TestCa("example.org")
    entry = {**x509_entry(), "x5c": [der_text(CA), der_text(other), "garbage"]}
    bundle = read({"keys": [entry]})
    assert [a.certificate for a in bundle.x509_authorities] == [CA.certificate]
    with pytest.raises(UntrustedX509Svid):
        verify_x509(other.issue_chain("/a"), BundleMap.of(bundle), NOW)


def test_X509_15_the_authorities_are_those_of_all_entries_each_once() -> None:
    other = TestCa("example.org")
    keys = [x509_entry(), x509_entry(other.bundle()), x509_entry()]
    assert [a.certificate for a in read({"keys": keys}).x509_authorities] == [CA.certificate, other.certificate]


@pytest.mark.parametrize("x5c", [["!"], ["AAAA"], [""], [1], ["MII="], "text", {"0": "x"}, 1, True])
def test_X509_15_a_certificate_that_cannot_be_read_spoils_the_document(x5c: Any) -> None:
    assert refused({"keys": [{**x509_entry(), "x5c": x5c}]})


def test_X509_15_a_certificate_in_base64url_or_in_lines_or_with_another_behind_it_is_refused() -> None:
    der = CA.certificate.public_bytes(Encoding.DER)
    assert refused({"keys": [{**x509_entry(), "x5c": [base64.b64encode(der + der).decode()]}]})
    assert refused({"keys": [{**x509_entry(), "x5c": [base64.encodebytes(der).decode()]}]})
    url = base64url(der)
    if set(url) & set("-_"):
        assert refused({"keys": [{**x509_entry(), "x5c": [url]}]})


def test_X509_15_a_key_beside_another_keys_certificate_is_refused() -> None:
    """RFC 7517 4.7: two readers, one of the key and one of the certificate, would trust different authorities."""
    assert "different keys" in refused({"keys": [{**x509_entry(), "x5c": [der_text(TestCa("example.org"))]}]})


def test_X509_15_a_leaf_is_refused_as_an_authority() -> None:
    svid = CA.issue("/a")
    entry = {**jwt_entry(), "use": "x509-svid", "x5c": [base64.b64encode(svid.chain_der()).decode()]}
    assert "not a CA" in refused({"keys": [entry]})
    for load in (TrustBundle.from_x509_der, TrustBundle.from_pem):
        with pytest.raises(InvalidBundle, match="not a CA"):
            load(TD, svid.chain_der() if load == TrustBundle.from_x509_der else svid.chain_pem())


def test_TDB_1_a_bundle_is_a_jwk_set_and_unknown_members_of_it_are_neither_needed_nor_in_the_way() -> None:
    assert read(FULL.to_jwks()) == FULL
    assert read({**document(), "x": {"y": [1]}, "spiffe_future": None}) == FULL
    assert read({"keys": document()["keys"]}) == replace(FULL, sequence=None, refresh_hint=None)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b'"keys"', b"{", b"{}", b'{"keys":null}', b'{"keys":{}}', b"\xff"]
)
def test_TDB_1_a_document_that_is_no_jwk_set_is_refused(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("key", [None, 1, "key", [], ["key"]])
def test_TDB_1_a_key_that_is_no_object_is_refused(key: Any) -> None:
    refused({"keys": [key]})


@pytest.mark.parametrize("sequence", [0, 1, 2**53 + 1, 2**63, 2**64 - 1])
def test_TDB_2_a_sequence_number_keeps_64_bits(sequence: int) -> None:
    bundle = replace(FULL, sequence=sequence)
    assert read(bundle.to_jwks()).sequence == sequence
    assert str(sequence).encode() in bundle.to_jwks()


@pytest.mark.parametrize("sequence", [-1, 2**64, 1.0, 1.5, "1", True, None, [], {}])
def test_TDB_2_a_sequence_number_that_is_no_whole_number_of_64_bits_is_refused(sequence: Any) -> None:
    assert "spiffe_sequence" in refused({"keys": [], "spiffe_sequence": sequence})


def test_TDB_2_and_TDB_3_both_may_be_absent() -> None:
    bundle = read({"keys": []})
    assert bundle.sequence is None
    assert bundle.refresh_hint is None
    assert document(bundle) == {"keys": []}


def test_TDB_3_a_refresh_hint_is_a_whole_number_of_seconds() -> None:
    assert read({"keys": [], "spiffe_refresh_hint": 300}).refresh_hint == timedelta(minutes=5)
    assert document()["spiffe_refresh_hint"] == 300
    assert document(replace(FULL, refresh_hint=timedelta(0)))["spiffe_refresh_hint"] == 0
    for hint in [-1, 1.5, "300", True, None, 10**12]:
        assert "spiffe_refresh_hint" in refused({"keys": [], "spiffe_refresh_hint": hint})


def test_TDB_4_an_empty_bundle_is_read_and_trusts_nothing() -> None:
    assert refused({"spiffe_sequence": 1})
    bundles = BundleMap.of(read({"keys": []}))
    with pytest.raises(UntrustedX509Svid):
        verify_x509(CA.issue_chain("/a"), bundles, NOW)
    with pytest.raises(UntrustedJwtSvid):
        verify_jwt(CA.jwt_svid(), bundles, "them", NOW)


def test_TDB_4_a_bundle_whose_every_key_is_unknown_is_empty() -> None:
    unknown = read({"keys": [{**x509_entry(), "kty": "PQC"}, {**jwt_entry(), "use": "new-svid"}]})
    assert unknown == TrustBundle(TD)


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "AKP"},
        {"kty": "AKP", "d": "AAAA", "p": "AAAA"},
        {"kty": "ec"},
        {"kty": None},
        {"kty": 1},
        {"kty": "oct", "k": "AAAA"},
        {"crv": "secp256k1"},
        {"crv": "P-1024"},
        {"crv": None},
        {"kty": "OKP", "crv": "X25519"},
        {"use": "wit-svid"},
        {"use": "X509-SVID"},
        {"use": "JWT-SVID"},
        {"use": "sig"},
        {"use": ""},
        {"use": None},
        {"use": 1},
        {"use": ["jwt-svid"]},
    ],
)
def test_TDB_5_a_key_of_unknown_type_or_use_is_ignored_and_the_rest_kept(change: dict[str, Any]) -> None:
    for entry in [x509_entry(), jwt_entry()]:
        changed = {k: v for k, v in {**entry, **change}.items() if v is not None}
        assert read({"keys": [changed, *document()["keys"]]}) == replace(FULL, sequence=None, refresh_hint=None)


def test_TDB_5_an_ed25519_key_is_no_jwt_authority_since_no_algorithm_of_jwt_svids_uses_it() -> None:
    entry = {"use": "jwt-svid", "kid": "e", "kty": "OKP", "crv": "Ed25519", "x": base64url(b"\1" * 32)}
    assert read({"keys": [entry]}).jwt_authorities == ()


@pytest.mark.parametrize(
    "change",
    [
        {"x": "!"},
        {"x": ""},
        {"x": 1},
        {"x": None},
        {"x": "AAAA"},
        {"x": "A" * 5000},
        {"y": base64url(b"\1" * 32)},
        {"d": "AAAA"},
        {"kid": None},
        {"kid": ""},
        {"kid": 7},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": base64url(b"\xff" * 256), "e": "AA"},
        {"kty": "RSA", "n": base64url(b"\xff" * 2048), "e": "AQAB"},
    ],
)
def test_TDB_5_a_malformed_key_of_known_type_and_use_spoils_the_document(change: dict[str, Any]) -> None:
    """A reader keeps its last good bundle rather than half of a broken one."""
    refused({"keys": [{k: v for k, v in {**jwt_entry(), **change}.items() if v is not None}]})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": None}, "its x is missing or too long"),
        ({"x": ""}, "its x is missing or too long"),
        ({"x": 1}, "its x is missing or too long"),
        ({"kty": "RSA", "e": "AQAB", "n": "A" * 4097}, "its n is missing or too long"),
        ({"kty": "RSA", "e": "AQAB", "n": "A" * 4096}, "its key cannot be read"),
        ({"x": "!!!!"}, "its x is not base64url"),
        ({"x": "ab+/"}, "its x is not base64url"),
        ({"x": "AQAB="}, "its x is not base64url"),
        ({"x": "AR"}, "its x is not base64url"),
        ({"x": "ÄÄÄÄ"}, "its x is not base64url"),
        *(({member: "AAAA"}, "private key") for member in ("d", "p", "q", "dp", "dq", "qi", "oth")),
        ({"kid": None}, "no key ID"),
    ],
)
def test_TDB_5_the_refusal_of_a_malformed_key_says_which_member_is_wrong(change: dict[str, Any], reason: str) -> None:
    entry = {k: v for k, v in {**jwt_entry(), **change}.items() if v is not None}
    assert reason in refused({"keys": [entry]})


def test_TDB_6_every_published_key_has_its_type_and_use_and_nothing_the_standards_do_not_define() -> None:
    defined = {"kty", "use", "kid", "x5c", "n", "e", "crv", "x", "y"}
    bundle = replace(FULL, jwt_authorities=(*FULL.jwt_authorities, JwtKey("rsa", new_key("rsa-2048").public_key())))
    keys = document(bundle)["keys"]
    assert len(keys) == 3
    assert keys[-1]["e"] == "AQAB"
    for key in keys:
        assert {"kty", "use"} <= key.keys() <= defined


def test_TDB_7_a_bundle_knows_its_trust_domain_which_its_document_does_not_name() -> None:
    other = TrustBundle.from_jwks(TrustDomain("partner.test"), FULL.to_jwks())
    assert other.trust_domain == TrustDomain("partner.test")
    assert other != FULL
    with pytest.raises(InvalidBundle, match="another domain's name"):
        BundleMap({TD: other})


def test_TDB_7_an_authority_shared_by_two_trust_domains_is_found() -> None:
    theirs = TestCa("partner.test")
    assert FULL.overlap(theirs.bundle()) == ""
    same_key = TestCa("partner.test", key=CA.key, ski=False)
    same_subject = TestCa("partner.test", name=CA.name)
    assert "key of one of example.org" in same_key.bundle().overlap(FULL)
    assert "subject" in same_subject.bundle().overlap(FULL)
    assert "JWT authority" in TestCa("partner.test", jwt_key=CA.jwt_key).bundle().overlap(FULL)
    assert "key" in FULL.overlap(same_key.bundle())


def test_TDB_7_an_authority_with_anothers_key_identifier_is_found() -> None:
    stolen = x509.SubjectKeyIdentifier.from_public_key(CA.key.public_key())
    thief = TestCa("partner.test", ski=False, extra=[(stolen, False)])
    assert "key identifier" in thief.bundle().overlap(FULL)


def test_TDB_8_a_bundle_map_is_read_and_written_under_its_trust_domains_names() -> None:
    theirs = TestCa("partner.test")
    bundles = BundleMap.of(FULL, theirs.bundle())
    written = json.loads(bundles.serialize())
    assert written.keys() == {"trust_domains"}
    assert written["trust_domains"].keys() == {"example.org", "partner.test"}
    assert BundleMap.parse(bundles.serialize()) == BundleMap.of(replace(FULL, refresh_hint=None), theirs.bundle())


def test_TDB_8_the_map_must_be_there_and_may_be_empty() -> None:
    assert BundleMap.parse(b'{"trust_domains":{}}') == BundleMap()
    for data in [b"{}", b"[]", b'{"trust_domains":[]}', b'{"trust_domains":null}', b'{"trust_domains":{"a":[]}}']:
        with pytest.raises(InvalidBundle):
            BundleMap.parse(data)


def test_TDB_8_a_duplicate_trust_domain_is_refused_and_so_is_any_duplicate_name() -> None:
    one = FULL.to_jwks().decode()
    for text in [
        f'{{"trust_domains":{{"example.org":{one},"example.org":{one}}}}}',
        f'{{"trust_domains":{{"example.org":{one},"example.\\u006frg":{one}}}}}',
        f'{{"trust_domains":{{}},"trust_domains":{{"example.org":{one}}}}}',
        '{"trust_domains":{"example.org":{"keys":[],"keys":[]}}}',
    ]:
        with pytest.raises(InvalidBundle, match="twice"):
            BundleMap.parse(text.encode())
    assert "twice" in refused(b'{"keys":[{"kty":"EC","kty":"RSA"}]}')


def test_TDB_8_refresh_hints_in_a_map_are_not_written_and_not_read() -> None:
    assert b"refresh_hint" not in BundleMap.of(FULL).serialize()
    data = json.dumps({"trust_domains": {"example.org": {**document(), "spiffe_refresh_hint": "soon"}}}).encode()
    assert BundleMap.parse(data)[TD].refresh_hint is None


@pytest.mark.parametrize("name", ["", "Example.org", "spiffe://example.org", "example.org/", "..", "a b"])
def test_TDB_8_a_name_that_is_no_trust_domain_is_refused(name: str) -> None:
    with pytest.raises(InvalidBundle):
        BundleMap.parse(json.dumps({"trust_domains": {name: {"keys": []}}}).encode())


def test_TDB_9_without_a_hint_the_bundle_says_so_and_the_poller_chooses_its_default() -> None:
    assert read({"keys": []}).refresh_hint is None
    assert read({"keys": [], "spiffe_refresh_hint": 0}).refresh_hint == timedelta(0)


@pytest.mark.parametrize("data", [b"[" * 10_000, b'{"keys":' * 10_000, b'{"keys":[' + b"[" * 500 + b"]" * 500 + b"]}"])
def test_a_document_nested_too_deeply_is_refused(data: bytes) -> None:
    assert "nested" in refused(data)
    with pytest.raises(InvalidBundle, match="nested"):
        BundleMap.parse(data)


@pytest.mark.parametrize("number", [b"1" * 5000, b"NaN", b"-Infinity"])
def test_a_number_that_is_none_is_refused(number: bytes) -> None:
    refused(b'{"keys":[],"x":' + number + b"}")


def test_a_document_or_a_key_count_beyond_all_reason_is_refused() -> None:
    assert "bytes" in refused(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(InvalidBundle, match="67108864 bytes"):
        BundleMap.parse(b" " * (64 * 1024 * 1024 + 1))
    for load in (TrustBundle.from_x509_der, TrustBundle.from_pem):
        with pytest.raises(InvalidBundle, match="4194305 bytes are more"):
            load(TD, b" " * (4 * 1024 * 1024 + 1))
    assert "more than 2000" in refused({"keys": [{}] * 2001})
    assert read({"keys": [{}] * 2000}) == TrustBundle(TD)
    assert TrustBundle.from_x509_der(TD, FULL.x509_der() * 2000).x509_authorities == FULL.x509_authorities
    with pytest.raises(InvalidBundle, match="more than 2000"):
        TrustBundle.from_x509_der(TD, FULL.x509_der() * 2001)


def test_two_jwt_keys_of_one_id_are_refused() -> None:
    assert "one key ID" in refused({"keys": [jwt_entry(), jwt_entry()]})
    key = CA.jwt_authority()
    with pytest.raises(InvalidBundle, match="one key ID"):
        replace(FULL, jwt_authorities=(key, JwtKey(key.key_id, new_key().public_key())))


@pytest.mark.parametrize("kind", ["secp256k1", "rsa-1024", "rsa-16384", "rsa-slow"])
def test_authorities_of_a_strength_we_do_not_verify_are_refused(kind: str) -> None:
    with pytest.raises(InvalidBundle):
        JwtKey("k", new_key(kind).public_key())
    with pytest.raises(InvalidBundle):
        X509Authority(CA.intermediate(kind=kind).certificate)


@pytest.mark.parametrize(("bits", "fits"), [(2047, False), (2048, True), (8192, True), (8193, False)])
def test_an_rsa_key_of_an_authority_has_2048_to_8192_bits(bits: int, *, fits: bool) -> None:
    key = CertifiableKey(bits).public_key()
    if fits:
        assert JwtKey("k", key).public_key == key
    else:
        with pytest.raises(InvalidBundle, match=f"RSA of {bits} bits"):
            JwtKey("k", key)


def test_an_rsa_key_is_verified_up_to_an_exponent_of_31_bits() -> None:
    """As Go does. With one as long as the modulus, a chain of eight took seconds to refuse."""
    modulus = new_key("rsa-2048").public_key().public_numbers().n
    assert JwtKey("k", rsa.RSAPublicNumbers(2**31 - 1, modulus).public_key())
    with pytest.raises(InvalidBundle, match="exponent of more than 31 bits"):
        JwtKey("k", rsa.RSAPublicNumbers(2**31 + 1, modulus).public_key())


def test_a_refusal_of_a_key_stays_short_and_printable_whatever_its_id() -> None:
    with pytest.raises(InvalidBundle, match="RSA of 1024 bits") as caught:
        JwtKey("ä\n" * 100_000, new_key("rsa-1024").public_key())
    assert len(str(caught.value)) < 500
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_an_authority_that_cannot_be_looked_into_is_our_error() -> None:
    garbled = TestCa("example.org", spiffe_id=None, extra=[(unreadable_san(), False)])
    for data in [garbled.certificate.public_bytes(Encoding.DER), unknown_curve(CA.certificate)]:
        with pytest.raises(InvalidBundle, match="cannot be read"):
            TrustBundle.from_x509_der(TD, data)


def test_an_authority_without_a_readable_name_or_time_is_our_error() -> None:
    """The parser below finds it at the first look, which is where doors compare authorities or a table is written."""
    lasting = TestCa("example.org", ttl=24 * 365 * 50 * HOUR)
    timeless = year_zero(lasting.certificate, lasting.certificate.not_valid_after_utc)
    for broken in [unreadable_name(CA.certificate), timeless]:
        with pytest.raises(InvalidBundle, match="no certificate"):
            TrustBundle.from_x509_der(TD, broken)
        with pytest.raises(InvalidBundle, match="no certificate"):
            TrustBundle.from_pem(TD, ssl.DER_cert_to_PEM_cert(broken).encode())
        assert refused({"keys": [{**x509_entry(), "x5c": [base64.b64encode(broken).decode()]}]})


def test_the_workload_apis_forms_hold_what_they_should_and_nothing_else() -> None:
    assert TrustBundle.from_x509_der(TD, FULL.x509_der()).x509_authorities == FULL.x509_authorities
    assert TrustBundle.from_jwt_jwks(TD, FULL.jwt_jwks()).jwt_authorities == FULL.jwt_authorities
    assert TrustBundle.from_pem(TD, FULL.to_pem()).x509_authorities == FULL.x509_authorities
    jwks = json.loads(FULL.jwt_jwks())
    assert jwks.keys() == {"keys"}
    assert [k.keys() for k in jwks["keys"]] == [{"kid", "kty", "crv", "x", "y"}]
    assert TrustBundle.from_x509_der(TD, b"") == TrustBundle(TD)
    assert TrustBundle.from_jwt_jwks(TD, b'{"keys":[]}') == TrustBundle(TD)


def test_a_workload_apis_jwt_bundle_gives_no_key_of_another_use() -> None:
    keys = [{**jwt_entry(), "use": use} for use in ("wit-svid", "x509-svid")]
    assert TrustBundle.from_jwt_jwks(TD, json.dumps({"keys": keys}).encode()) == TrustBundle(TD)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"-----BEGIN CERTIFICATE-----", b"# only a comment", FULL.to_pem() + FULL.to_pem()[:-20]]
)
def test_der_and_pem_that_are_none_are_our_error(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        TrustBundle.from_pem(TD, data)
    if data:
        with pytest.raises(InvalidBundle):
            TrustBundle.from_x509_der(TD, data)


def test_a_jwt_key_is_found_by_its_id_alone() -> None:
    assert FULL.jwt_key(CA.key_id) == CA.jwt_authority()
    assert FULL.jwt_key("unknown") is None
    assert FULL.jwt_key("") is None


def test_an_authority_tells_its_key_identifier_with_or_without_the_extension() -> None:
    plain = TestCa("example.org", key=CA.key, ski=False)
    assert X509Authority(plain.certificate).subject_key_id == X509Authority(CA.certificate).subject_key_id
    assert len(X509Authority(CA.certificate).subject_key_id) == 40


def test_a_map_shows_whose_bundles_it_holds_and_no_keys() -> None:
    assert repr(BundleMap.of(FULL, TestCa("partner.test").bundle())) == "BundleMap(example.org, partner.test)"


def test_a_map_never_changes_and_its_changed_copies_share_nothing() -> None:
    theirs = TestCa("partner.test").bundle()
    given = {TD: FULL}
    first = BundleMap(given)
    given.clear()
    second = first.with_bundle(theirs)
    third = second.with_bundle(replace(FULL, sequence=8)).without(theirs.trust_domain)
    assert list(first) == [TD]
    assert set(second) == {TD, theirs.trust_domain}
    assert third[TD].sequence == 8
    assert first[TD].sequence == 7
    assert third.get(theirs.trust_domain) is None
    with pytest.raises(TypeError):
        first[TD] = theirs  # type: ignore[index]  # that is the point


def test_two_bundles_of_one_trust_domain_are_not_merged() -> None:
    with pytest.raises(InvalidBundle, match="one trust domain"):
        BundleMap.of(FULL, TestCa("example.org").bundle())


def test_what_only_the_issuer_knows_of_a_key_is_in_no_document() -> None:
    known = replace(CA.jwt_authority(), expires_at=NOW + HOUR, tainted=True)
    told = read(replace(FULL, jwt_authorities=(known,)).to_jwks()).jwt_authorities[0]
    assert (told.expires_at, told.tainted) == (None, False)
