"""Properties of `livery.identity`: a parser raises its own error alone, and what it accepts reads back equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from livery.identity import (
    BundleMap,
    IdentityError,
    InvalidBundle,
    InvalidJwtSvid,
    InvalidSelector,
    InvalidSpiffeId,
    InvalidTrustDomain,
    InvalidX509Svid,
    JwtSvid,
    Selector,
    SpiffeId,
    TrustBundle,
    TrustDomain,
    X509Authority,
    X509Svid,
    leaf_id,
    parse_chain,
    verify_jwt,
    verify_x509,
)
from tests.pki import LEAF_USAGE, NOW, TestCa, Twist, sign_jws

T = TypeVar("T")

CA = TestCa("example.org")
TD = CA.trust_domain
BUNDLES = BundleMap.of(CA.bundle())
SVID = CA.intermediate().issue("/orders")
CHAIN = SVID.chain_der()
OURS = "spiffe://example.org/orders"
TOKEN = CA.jwt_svid("/orders", jti="1")
CAS = [CA, TestCa("example.org", "P-384", jwt_kind="rsa-2048"), TestCa("example.org", "rsa-2048", jwt_kind="P-521")]

EXTENSIONS = [oid for oid in vars(ExtensionOID).values() if isinstance(oid, x509.ObjectIdentifier)]

often = settings(max_examples=300, deadline=None)
sometimes = settings(max_examples=100, deadline=None)

LOWER = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
SEGMENT = LOWER + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STRANGE = "%/?#@:[]\\ \t\n\r\0\x7f~+!$&'()*,;=\N{KELVIN SIGN}\N{LATIN SMALL LETTER LONG S}ßé٣。"

names = st.text(LOWER, min_size=1, max_size=255).filter(lambda n: n not in {".", ".."})
segments = st.text(SEGMENT, min_size=1, max_size=40).filter(lambda s: s not in {".", ".."})
paths = st.lists(segments, max_size=8).map(lambda found: "".join(f"/{s}" for s in found))
almost_ids = st.one_of(
    st.text(),
    st.text(SEGMENT + STRANGE, max_size=60).map("spiffe://{}".format),
    st.tuples(names, st.text(SEGMENT + STRANGE, max_size=60)).map(lambda t: f"spiffe://{t[0]}/{t[1]}"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def attempt(error: type[IdentityError], parse: Callable[[], T]) -> T | None:
    """What the parser makes of it, or None when it refuses with its own error; any other exception fails the test."""
    try:
        return parse()
    except error:
        return None


def is_spiffe_id(uri: str) -> bool:
    """The grammar of SPIFFE-ID 2 once more, read aloud letter by letter and sharing nothing with the parser."""
    if uri[:9] != "spiffe://" or len(uri) > 2048:
        return False
    name, *path = uri[9:].split("/")
    name_fits = 0 < len(name) <= 255 and all(c in LOWER for c in name) and name not in {".", ".."}
    return name_fits and all(s and all(c in SEGMENT for c in s) and s not in {".", ".."} for s in path)


@often
@given(almost_ids)
def test_a_text_is_a_spiffe_id_exactly_when_the_grammar_says_so(uri: str) -> None:
    spiffe_id = attempt(InvalidSpiffeId, lambda: SpiffeId.parse(uri))
    assert (spiffe_id is not None) == is_spiffe_id(uri)
    if spiffe_id is not None:
        assert str(spiffe_id) == uri


@often
@given(names, paths)
def test_a_spiffe_id_reads_back_from_its_parts_and_its_text(name: str, path: str) -> None:
    spiffe_id = SpiffeId.of(TrustDomain(name), path)
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id
    assert "".join(f"/{s}" for s in spiffe_id.segments) == path
    assert spiffe_id.is_root == (path == "")


@often
@given(names, paths, names, paths)
def test_two_ids_are_equal_exactly_when_their_texts_are(name: str, path: str, other: str, other_path: str) -> None:
    one, two = SpiffeId.of(TrustDomain(name), path), SpiffeId.of(TrustDomain(other), other_path)
    assert (one == two) == (str(one) == str(two))


@often
@given(st.one_of(st.text(), st.text(LOWER + STRANGE, max_size=300), names))
def test_a_trust_domain_is_refused_or_reads_back(text: str) -> None:
    trust_domain = attempt(InvalidTrustDomain, lambda: TrustDomain.parse(text))
    if trust_domain is not None:
        assert str(trust_domain) == text.removeprefix("spiffe://")
        assert trust_domain == TrustDomain.parse(str(SpiffeId(trust_domain)))


@often
@given(st.one_of(st.text(), st.tuples(st.text(max_size=10), st.text()).map(":".join)))
def test_a_selector_is_refused_or_reads_back(text: str) -> None:
    selector = attempt(InvalidSelector, lambda: Selector.parse(text))
    if selector is not None:
        assert str(selector) == text
        assert Selector.parse(str(selector)) == selector
        assert text.encode().decode() == text


@often
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_as_certificates_keys_and_bundles_with_the_right_error(data: bytes) -> None:
    assert attempt(InvalidX509Svid, lambda: parse_chain(data)) is None
    assert attempt(InvalidX509Svid, lambda: X509Svid.from_der(data, data)) is None
    assert attempt(InvalidX509Svid, lambda: X509Svid.from_der(CHAIN, data)) is None
    assert attempt(InvalidX509Svid, lambda: X509Svid.from_pem(data, data)) is None
    assert attempt(InvalidX509Svid, lambda: X509Svid.from_pem(SVID.chain_pem(), data)) is None
    assert attempt(InvalidBundle, lambda: TrustBundle.from_pem(TD, data)) is None
    assert attempt(InvalidBundle, lambda: TrustBundle.from_x509_der(TD, data)) in {None, TrustBundle(TD)}
    assert attempt(InvalidBundle, lambda: TrustBundle.from_jwks(TD, data)) is None
    assert attempt(InvalidBundle, lambda: TrustBundle.from_jwt_jwks(TD, data)) is None
    assert attempt(InvalidBundle, lambda: BundleMap.parse(data)) is None


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with a few bytes changed, cut out or put in."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        size = draw(st.sampled_from([0, 1, 1, 1, 2, 30]))
        data[at : at + size] = draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=4))
        data = data or bytearray(original)
    return bytes(data)


@settings(max_examples=1500, deadline=None)
@given(mutated(CHAIN))
def test_a_chain_changed_in_any_byte_is_refused_with_our_error(der: bytes) -> None:
    chain = attempt(InvalidX509Svid, lambda: parse_chain(der))
    if chain is not None:
        attempt(InvalidX509Svid, lambda: leaf_id(chain[0]))
        attempt(InvalidBundle, lambda: TrustBundle.from_x509_der(TD, der))
        verified = attempt(IdentityError, lambda: verify_x509(chain, BUNDLES, NOW))
        # A stray certificate between may be anything; the leaf and the issuer that carried the path may not.
        assert verified is None or (verified.chain[0], verified.chain[1]) == SVID.chain


def tlv(parts: tuple[int, bytes]) -> bytes:
    """Tag, length and value, as DER writes them up to 127 bytes."""
    tag, value = parts
    return bytes([tag, len(value[:127])]) + value[:127]


scraps = st.sampled_from([b"", b"\0", b"\1", b"\xff", b"a.test", OURS.encode(), b"\x2a\x03"]) | st.binary(max_size=6)
almost_der = st.recursive(
    st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, 10, 12, 22, 24, *range(0x80, 0x89)]), scraps).map(tlv),
    lambda inner: st.tuples(
        st.sampled_from([0x30, 0x30, 0x31, *range(0xA0, 0xA6)]), st.lists(inner, max_size=3).map(b"".join)
    ).map(tlv),
    max_leaves=6,
)


@often
@given(st.sampled_from(EXTENSIONS), almost_der | st.binary(max_size=12), st.booleans())
def test_anything_as_an_extension_is_harmless_or_refused_with_our_error(
    oid: x509.ObjectIdentifier, value: bytes, critical: bool
) -> None:
    twist = Twist(
        san=oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        subject="x",
        ca=None if oid == ExtensionOID.BASIC_CONSTRAINTS else False,
        key_usage=None if oid == ExtensionOID.KEY_USAGE else LEAF_USAGE,
        extended_uses=None,
        aki=oid != ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        extra=[(x509.UnrecognizedExtension(oid, value), critical)],
    )
    chain = CA.issue_chain("/orders", twist)
    spiffe_id = attempt(InvalidX509Svid, lambda: leaf_id(chain[0]))
    verified = attempt(IdentityError, lambda: verify_x509(chain, BUNDLES, NOW))
    assert verified is None or verified.id == spiffe_id == SpiffeId.parse(OURS)
    assert attempt(InvalidBundle, lambda: X509Authority(chain[0])) is None


@often
@given(mutated(SVID.key_der()), mutated(SVID.key_pem()))
def test_a_changed_key_is_refused_or_still_the_leafs(der: bytes, pem: bytes) -> None:
    assert attempt(InvalidX509Svid, lambda: X509Svid.from_der(CHAIN, der)) in {None, SVID}
    assert attempt(InvalidX509Svid, lambda: X509Svid.from_pem(SVID.chain_pem(), pem)) in {None, SVID}


@often
@given(st.text())
def test_any_text_is_refused_as_a_token_with_our_error(text: str) -> None:
    assert attempt(InvalidJwtSvid, lambda: JwtSvid.parse_unverified(text)) is None


@often
@given(mutated(TOKEN.encode()))
def test_a_token_changed_in_any_character_is_refused(data: bytes) -> None:
    token = data.decode("latin-1")
    verified = attempt(IdentityError, lambda: verify_jwt(token, BUNDLES, "them", NOW))
    assert verified is None or token == TOKEN


@often
@given(json_values, json_values)
def test_any_json_as_header_or_payload_is_refused_with_our_error(header: Any, payload: Any) -> None:
    for token in [
        sign_jws(json.dumps(header), json.dumps(CA.claims()), CA.jwt_key, "ES256"),
        sign_jws({"alg": "ES256", "kid": CA.key_id}, json.dumps(payload), CA.jwt_key, "ES256"),
    ]:
        assert attempt(InvalidJwtSvid, lambda token=token: JwtSvid.parse_unverified(token)) is None


@often
@given(st.sampled_from(["sub", "aud", "exp", "nbf", "iat", "jti", "x"]), json_values)
def test_any_json_as_a_claim_is_refused_or_kept_as_it_is(name: str, value: Any) -> None:
    token = CA.sign_jwt({**CA.claims(), name: value})
    svid = attempt(InvalidJwtSvid, lambda: JwtSvid.parse_unverified(token))
    if svid is not None:
        assert json.dumps(dict(svid.claims)) == json.dumps({**CA.claims(), name: value})
        verified = attempt(IdentityError, lambda: verify_jwt(token, BUNDLES, "them", NOW))
        assert verified is None or verified.claims == svid.claims


@often
@given(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), json_values)
def test_any_json_as_a_header_member_is_refused_or_harmless(name: str, value: Any) -> None:
    token = sign_jws({"alg": "ES256", "kid": CA.key_id, name: value}, json.dumps(CA.claims()), CA.jwt_key, "ES256")
    verified = attempt(IdentityError, lambda: verify_jwt(token, BUNDLES, "them", NOW))
    assert verified is None or name == "typ" or (name, value) in {("alg", "ES256"), ("kid", CA.key_id)}


@sometimes
@given(st.text(max_size=30) | st.text(LOWER, min_size=1, max_size=10), st.integers(-5, 5), st.integers(-5, 5))
def test_a_token_is_verified_exactly_in_its_time_and_for_its_audience(audience: str, start: int, end: int) -> None:
    base = int(NOW.timestamp())
    token = CA.jwt_svid(audience=["them"], nbf=base + start, exp=base + end)
    verified = attempt(IdentityError, lambda: verify_jwt(token, BUNDLES, audience, NOW))
    assert (verified is not None) == (audience == "them" and start <= 0 < end)
    assert attempt(IdentityError, lambda: verify_jwt(token, BUNDLES, "them", NOW, timedelta(seconds=10)))


@often
@given(json_values)
def test_any_json_is_refused_as_a_bundle_or_a_map_with_our_error(value: Any) -> None:
    data = json.dumps(value).encode()
    for parse in (TrustBundle.from_jwks, TrustBundle.from_jwt_jwks):
        assert attempt(InvalidBundle, lambda parse=parse: parse(TD, data)) is None
    assert attempt(InvalidBundle, lambda: BundleMap.parse(data)) is None


@often
@given(st.sampled_from(["kty", "use", "kid", "crv", "x", "y", "x5c", "n", "e", "d"]), json_values, st.integers(0, 1))
def test_any_json_as_a_member_of_a_key_is_refused_or_ignored_or_harmless(name: str, value: Any, which: int) -> None:
    document = json.loads(CA.bundle().to_jwks())
    document["keys"][which][name] = value
    bundle = attempt(InvalidBundle, lambda: TrustBundle.from_jwks(TD, json.dumps(document).encode()))
    if bundle is not None:
        assert set(bundle.x509_authorities) <= set(CA.bundle().x509_authorities)
        assert {k.public_key.public_numbers() for k in bundle.jwt_authorities} <= {
            CA.jwt_key.public_key().public_numbers()
        }


@often
@given(mutated(CA.bundle(sequence=1).to_jwks()))
def test_a_changed_bundle_document_is_refused_or_holds_no_authority_of_a_strangers(data: bytes) -> None:
    bundle = attempt(InvalidBundle, lambda: TrustBundle.from_jwks(TD, data))
    if bundle is not None:
        chain = TestCa("example.org", key=CAS[1].key).issue_chain("/a")
        assert attempt(IdentityError, lambda: verify_x509(chain, BundleMap.of(bundle), NOW)) is None


@st.composite
def bundles_of(draw: st.DrawFn, trust_domain: TrustDomain) -> TrustBundle:
    """A bundle of some authorities, with or without a sequence and a hint."""
    x509_from = draw(st.lists(st.sampled_from(CAS), unique=True))
    jwt_from = draw(st.lists(st.sampled_from(CAS), unique=True))
    return TrustBundle(
        trust_domain,
        tuple(a for ca in x509_from for a in ca.bundle().x509_authorities),
        tuple(replace(ca.jwt_authority(), key_id=draw(st.text(min_size=1, max_size=8)) + ca.key_id) for ca in jwt_from),
        draw(st.none() | st.integers(0, 2**64 - 1)),
        draw(st.none() | st.integers(0, 10**6).map(lambda s: timedelta(seconds=s))),
    )


@often
@given(bundles_of(TD))
def test_a_bundle_reads_back_from_each_of_its_forms(bundle: TrustBundle) -> None:
    assert TrustBundle.from_jwks(TD, bundle.to_jwks()) == bundle
    assert TrustBundle.from_jwt_jwks(TD, bundle.jwt_jwks()).jwt_authorities == bundle.jwt_authorities
    assert TrustBundle.from_x509_der(TD, bundle.x509_der()).x509_authorities == bundle.x509_authorities
    if bundle.x509_authorities:
        assert TrustBundle.from_pem(TD, bundle.to_pem()).x509_authorities == bundle.x509_authorities


@sometimes
@given(st.lists(names.map(TrustDomain), unique=True, max_size=4).flatmap(lambda tds: st.tuples(*map(bundles_of, tds))))
def test_a_bundle_map_reads_back_and_copies_leave_it_alone(found: tuple[TrustBundle, ...]) -> None:
    bundles = BundleMap.of(*(replace(b, refresh_hint=None) for b in found))
    assert BundleMap.parse(bundles.serialize()) == bundles
    for bundle in found:
        assert bundle.trust_domain not in bundles.without(bundle.trust_domain)
        assert bundles.without(bundle.trust_domain).with_bundle(bundles[bundle.trust_domain]) == bundles
    assert len(bundles) == len(found)
