"""JWT-SVIDs and their verification: the rows JWT-1 to JWT-11 of docs/conformance.md."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from livery.identity import (
    BundleMap,
    ExpiredJwtSvid,
    InvalidJwtSvid,
    JwtKey,
    JwtSvid,
    PrematureJwtSvid,
    SpiffeId,
    TrustBundle,
    TrustDomain,
    UntrustedJwtSvid,
    VerifiedJwtSvid,
    WrongAudience,
    verify_jwt,
)
from tests.pki import HOUR, NOW, FederatedPair, TestCa, base64url, new_key, sign_jws

CA = TestCa("example.org")
BUNDLES = BundleMap.of(CA.bundle())
SECOND = timedelta(seconds=1)
EPOCH = int(NOW.timestamp())


def verified(token: str, bundles: BundleMap = BUNDLES, audience: Any = "them", **options: Any) -> VerifiedJwtSvid:
    return verify_jwt(token, bundles, audience, options.pop("at", NOW), **options)


def refused(token: str) -> str:
    """Why the token is refused by its shape alone, whether or not anybody is trusted."""
    with pytest.raises(InvalidJwtSvid) as caught:
        JwtSvid.parse_unverified(token)
    for bundles in [BUNDLES, BundleMap()]:
        with pytest.raises(InvalidJwtSvid):
            verified(token, bundles)
    return str(caught.value)


def with_payload(payload: str | bytes) -> str:
    return sign_jws({"alg": "ES256", "kid": CA.key_id}, payload, CA.jwt_key, "ES256")


def with_header(header: Any) -> str:
    return sign_jws(header, json.dumps(CA.claims()), CA.jwt_key, "ES256")


def test_JWT_1_a_token_in_compact_serialisation_is_verified() -> None:
    found = verified(CA.jwt_svid("/orders"))
    assert found.id == SpiffeId.parse("spiffe://example.org/orders")
    assert found.audience == ("them",)
    assert found.expires_at == NOW + HOUR
    assert found.key_id == CA.key_id
    assert found.claims["iat"] == EPOCH
    assert JwtSvid.parse_unverified(CA.jwt_svid(), "internal").hint == "internal"


def test_JWT_1_json_serialisations_and_encrypted_tokens_are_refused() -> None:
    header, payload, signature = CA.jwt_svid().split(".")
    flattened = {"protected": header, "payload": payload, "signature": signature, "header": {"kid": "x"}}
    general = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    encrypted = ".".join([header, payload, signature, header, payload])
    for text in [json.dumps(flattened), json.dumps(general), encrypted]:
        assert "compact" in refused(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, p, s: "",
        lambda h, p, s: ".",
        lambda h, p, s: "..",
        lambda h, p, s: f"{h}.{p}",
        lambda h, p, s: f"{h}.{p}.",
        lambda h, p, s: f"{h}..{s}",
        lambda h, p, s: f".{p}.{s}",
        lambda h, p, s: f"{h}.{p}.{s}.",
        lambda h, p, s: f"{h}.{p}.{s}\n",
        lambda h, p, s: f" {h}.{p}.{s}",
        lambda h, p, s: f"{h}.{p}.{s}=",
        lambda h, p, s: f"{h}.{p}.{s}==",
        lambda h, p, s: f"{h}.{p}.{s}AAA",
        lambda h, p, s: f"{h}.{p}.+{s[1:]}",
        lambda h, p, s: f"{h}.{p}.{s[:10]} {s[10:]}",
        lambda h, p, s: f"Bearer {h}.{p}.{s}",
        lambda h, p, s: f"{h}.{p}.\N{KELVIN SIGN}{s[1:]}",
        lambda h, p, s: "." * 70_000,
    ],
)
def test_JWT_1_a_text_that_is_almost_a_compact_token_is_refused(change: Any) -> None:
    token = change(*CA.jwt_svid().split("."))
    with pytest.raises((InvalidJwtSvid, UntrustedJwtSvid)):
        verified(token)


def test_JWT_1_one_token_has_one_spelling() -> None:
    """Spare bits in the last character decode to the same bytes; whoever lists tokens as spent must not be fooled."""
    token = CA.jwt_svid()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = alphabet[alphabet.index(token[-1]) ^ 1]
    assert "canonical" in refused(token[:-1] + spare)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("P-256", "ES256"),
        ("P-384", "ES384"),
        ("P-521", "ES512"),
        *(("rsa-2048", f"{family}{bits}") for family in ("RS", "PS") for bits in (256, 384, 512)),
    ],
)
def test_JWT_2_each_of_the_nine_algorithms_is_verified(kind: str, algorithm: str) -> None:
    ca = TestCa("example.org", jwt_kind=kind)
    assert verified(ca.sign_jwt(ca.claims(), algorithm=algorithm), BundleMap.of(ca.bundle()))


@pytest.mark.parametrize(
    "algorithm",
    ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "EdDSA", "ES256K", "es256", "RS1", None, 1, ["ES256"]],
)
def test_JWT_2_another_algorithm_is_refused_before_any_key_is_looked_for(algorithm: Any) -> None:
    assert "alg" in refused(with_header({"alg": algorithm, "kid": CA.key_id}))
    assert "alg" in refused(with_header({"kid": CA.key_id}))


def test_JWT_2_an_unsigned_token_is_refused() -> None:
    header, payload, _ = CA.jwt_svid().split(".")
    none = base64url(json.dumps({"alg": "none", "kid": CA.key_id}).encode())
    assert refused(f"{none}.{payload}.")
    assert refused(f"{none}.{payload}.AA")
    assert refused(f"{header}.{payload}.")


def test_JWT_2_a_public_key_does_not_serve_as_a_shared_secret() -> None:
    public = CA.jwt_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signer = jwt.get_algorithm_by_name("HS256")
    header = base64url(json.dumps({"alg": "HS256", "kid": CA.key_id}).encode())
    signed = f"{header}.{base64url(json.dumps(CA.claims()).encode())}"
    assert "alg" in refused(f"{signed}.{base64url(signer.sign(signed.encode(), public))}")


def test_JWT_2_an_algorithm_that_does_not_go_with_the_key_is_refused() -> None:
    """The key says what it is for; a token does not get to choose (ES256 is P-256 alone, RFC 7518 3.4)."""
    p384 = TestCa("example.org", jwt_kind="P-384")
    rsa = TestCa("example.org", jwt_kind="rsa-2048")
    for ca, algorithm in [(p384, "ES256"), (p384, "RS256"), (rsa, "ES256"), (CA, "ES512"), (CA, "PS256")]:
        token = sign_jws({"alg": algorithm, "kid": ca.key_id}, json.dumps(ca.claims()), CA.jwt_key, "ES256")
        with pytest.raises(UntrustedJwtSvid, match="alg does not go"):
            verified(token, BundleMap.of(ca.bundle()))


def test_JWT_3_a_token_without_a_key_id_is_refused() -> None:
    """The standard lets it be absent; we name keys by it and try none at random."""
    for header in [
        {"alg": "ES256"},
        {"alg": "ES256", "kid": ""},
        {"alg": "ES256", "kid": None},
        {"alg": "ES256", "kid": 7},
    ]:
        assert "kid" in refused(with_header(header))


@pytest.mark.parametrize("typ", ["JWT", "JOSE"])
def test_JWT_3_a_type_may_be_jwt_or_jose_or_absent(typ: str) -> None:
    assert verified(with_header({"alg": "ES256", "kid": CA.key_id, "typ": typ}))
    assert verified(with_header({"alg": "ES256", "kid": CA.key_id}))


@pytest.mark.parametrize("typ", ["jwt", "Jwt", "wit+jwt", "at+jwt", "application/jwt", "JWT ", "", None, 1, ["JWT"]])
def test_JWT_3_another_type_is_refused(typ: Any) -> None:
    assert "typ" in refused(with_header({"alg": "ES256", "kid": CA.key_id, "typ": typ}))


@pytest.mark.parametrize(
    "member",
    [
        "jku",
        "jwk",
        "x5u",
        "x5c",
        "x5t",
        "x5t#S256",
        "crit",
        "cty",
        "b64",
        "zip",
        "enc",
        "nonce",
        "KID",
        "iss",
        "private",
    ],
)
def test_JWT_4_any_other_header_member_is_refused(member: str) -> None:
    assert "header holds" in refused(with_header({"alg": "ES256", "kid": CA.key_id, member: None}))


@pytest.mark.parametrize(
    "sub",
    [
        None,
        "",
        "orders",
        "https://example.org/orders",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/orders\n",
        "spiffe://EXAMPLE.org/orders",
        "spiffe://example.org/%6frders",
        1,
        True,
        ["spiffe://example.org/orders"],
        {"id": "spiffe://example.org/orders"},
    ],
)
def test_JWT_5_a_subject_that_is_no_workloads_spiffe_id_is_refused(sub: Any) -> None:
    assert "sub" in refused(CA.sign_jwt({**CA.claims(), "sub": sub}))


def test_JWT_5_a_token_without_a_subject_is_refused() -> None:
    assert "sub" in refused(CA.jwt_svid(sub=None))


@pytest.mark.parametrize(
    ("audience", "ours"),
    [
        ("them", "them"),
        (["them"], "them"),
        (["others", "them"], "them"),
        (["them"], ["us", "them"]),
        ("them", {"them"}),
        ("spiffe://example.org/reports", "spiffe://example.org/reports"),
    ],
)
def test_JWT_6_a_token_that_names_us_is_accepted(audience: Any, ours: Any) -> None:
    assert verified(CA.jwt_svid(audience=audience), audience=ours)


@pytest.mark.parametrize(
    ("audience", "ours"),
    [
        ("them", "us"),
        (["a", "b"], "us"),
        ("them", "the"),
        ("them", "Them"),
        ("them", []),
        ("them", ""),
        ("us them", "us"),
    ],
)
def test_JWT_6_a_token_for_somebody_else_is_refused_and_nobody_is_not_anybody(audience: Any, ours: Any) -> None:
    with pytest.raises(WrongAudience):
        verified(CA.jwt_svid(audience=audience), audience=ours)


@pytest.mark.parametrize("audience", ["", [], [""], ["them", ""], ["them", 1], [["them"]], {"them": 1}, 1, True, None])
def test_JWT_6_a_token_that_names_nobody_or_no_texts_is_refused(audience: Any) -> None:
    assert "aud" in refused(CA.sign_jwt({**CA.claims(), "aud": audience}))


def test_JWT_6_a_token_without_an_audience_is_refused() -> None:
    claims = CA.claims()
    del claims["aud"]
    assert "aud" in refused(CA.sign_jwt(claims))


def test_JWT_7_a_token_without_an_end_is_refused() -> None:
    claims = CA.claims()
    del claims["exp"]
    assert "exp" in refused(CA.sign_jwt(claims))


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1" + "0" * 400, "-1" + "0" * 400])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat", "other"])
def test_JWT_7_a_number_that_readers_take_for_infinity_is_refused_wherever_it_stands(name: str, value: str) -> None:
    claims = json.dumps(CA.claims(**{name: 987654321}))
    assert f"{value[:50]} is more" in refused(with_payload(claims.replace("987654321", value)))


@pytest.mark.parametrize(
    "value", ['"1795000000"', "null", "true", "[]", "{}", "-1", "1e308", "-1e308", "1" + "0" * 30, "253402300800", '""']
)
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_JWT_7_a_time_that_is_no_number_or_no_date_is_refused(name: str, value: str) -> None:
    claims = json.dumps(CA.claims(**{name: 987654321}))
    assert name in refused(with_payload(claims.replace("987654321", value)))


def test_JWT_7_the_first_and_the_last_second_that_have_a_date_are_dates() -> None:
    svid = JwtSvid.parse_unverified(CA.jwt_svid(iat=0, exp=253402300799))
    assert svid.issued_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert svid.expires_at == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_JWT_7_a_token_ends_at_its_exp_and_not_after_the_leeway() -> None:
    token = CA.jwt_svid(ttl=HOUR)
    assert verified(token, at=NOW + HOUR - SECOND)
    with pytest.raises(ExpiredJwtSvid):
        verified(token, at=NOW + HOUR)
    assert verified(token, at=NOW + HOUR + 4 * SECOND, leeway=5 * SECOND)
    with pytest.raises(ExpiredJwtSvid):
        verified(token, at=NOW + HOUR + 5 * SECOND, leeway=5 * SECOND)


def test_JWT_7_a_token_begins_at_its_nbf_less_the_leeway() -> None:
    token = CA.jwt_svid(nbf=EPOCH + 10)
    with pytest.raises(PrematureJwtSvid):
        verified(token)
    assert verified(token, at=NOW + 10 * SECOND)
    assert verified(token, leeway=10 * SECOND)
    with pytest.raises(PrematureJwtSvid):
        verified(token, leeway=9 * SECOND)


def test_JWT_7_fractions_of_a_second_count_and_an_iat_in_the_future_refuses_nothing() -> None:
    """RFC 7519 4.1.6 makes iat a statement and no bound; refusing it would punish an authority's fast clock."""
    assert verified(CA.jwt_svid(exp=EPOCH + 1.5), at=NOW + SECOND).expires_at == NOW + 1.5 * SECOND
    with pytest.raises(ExpiredJwtSvid):
        verified(CA.jwt_svid(exp=EPOCH + 1.5), at=NOW + 1.5 * SECOND)
    assert verified(CA.jwt_svid(iat=EPOCH + 60))
    assert JwtSvid.parse_unverified(CA.jwt_svid(iat=EPOCH + 60)).issued_at == NOW + timedelta(minutes=1)


def test_JWT_7_the_time_is_an_argument_and_never_without_a_zone() -> None:
    with pytest.raises(TypeError):
        verified(CA.jwt_svid(), at=datetime(2026, 11, 23, 12))  # noqa: DTZ001 - that is the point
    assert verified(CA.jwt_svid(), at=datetime(2026, 11, 23, 12, tzinfo=UTC))


def test_JWT_8_every_accepted_token_is_fit_for_an_authorization_header() -> None:
    """RFC 6750 2.1: `Bearer` and a b64token; nothing accepted can end the header or begin another."""
    svid = JwtSvid.parse_unverified(CA.jwt_svid(note="line\r\nX-Admin: yes"))
    assert re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", svid.token)


def test_JWT_9_a_published_jwt_key_has_its_use_and_key_id() -> None:
    (entry,) = [k for k in json.loads(CA.bundle().to_jwks())["keys"] if k["use"] == "jwt-svid"]
    assert entry["kid"] == CA.key_id
    assert entry.keys() == {"kty", "use", "kid", "crv", "x", "y"}


def test_JWT_10_a_token_is_held_against_the_keys_of_its_own_trust_domain_alone() -> None:
    pair = FederatedPair.default()
    bundles = BundleMap.of(pair.ours.bundle(), pair.theirs.bundle())
    assert verified(pair.theirs.jwt_svid(), bundles).id.trust_domain == TrustDomain("partner.test")
    for kid in [pair.ours.key_id, pair.theirs.key_id]:
        forged = pair.theirs.sign_jwt(pair.ours.claims("/admin"), header={"kid": kid})
        with pytest.raises(UntrustedJwtSvid):
            verified(forged, bundles)


def test_JWT_10_a_domain_without_jwt_keys_or_without_a_bundle_has_no_jwt_svids() -> None:
    for bundles in [BundleMap(), BundleMap.of(CA.bundle(jwt_authorities=())), BundleMap.of(TestCa("a.test").bundle())]:
        with pytest.raises(UntrustedJwtSvid, match="no JWT authority"):
            verified(CA.jwt_svid(), bundles)


@pytest.mark.parametrize("use", ["x509-svid", "wit-svid", "sig", "JWT-SVID", None])
def test_JWT_10_a_key_of_another_use_does_not_verify_a_token(use: str | None) -> None:
    (entry,) = json.loads(CA.bundle(x509_authorities=()).to_jwks())["keys"]
    changed = {k: v for k, v in {**entry, "use": use}.items() if v is not None}
    bundle = TrustBundle.from_jwks(CA.trust_domain, json.dumps({"keys": [changed]}).encode())
    with pytest.raises(UntrustedJwtSvid):
        verified(CA.jwt_svid(), BundleMap.of(bundle))


def test_JWT_10_a_key_that_is_unknown_removed_or_another_under_the_same_name_is_refused() -> None:
    with pytest.raises(UntrustedJwtSvid, match="not in its trust domain's bundle"):
        verified(CA.sign_jwt(CA.claims(), header={"kid": "unknown"}))
    with pytest.raises(UntrustedJwtSvid, match="not by the key"):
        verified(CA.sign_jwt(CA.claims(), key=new_key()))
    swapped = BundleMap.of(CA.bundle(jwt_authorities=(JwtKey(CA.key_id, new_key().public_key()),)))
    with pytest.raises(UntrustedJwtSvid, match="not by the key"):
        verified(CA.jwt_svid(), swapped)


def test_JWT_11_further_claims_are_kept_and_a_token_may_be_shown_twice() -> None:
    token = CA.jwt_svid(jti="1", iss="https://example.org", **{"https://example.org/role": ["a", {"b": 1}]})
    assert verified(token) == verified(token)
    assert verified(token).claims["https://example.org/role"] == ["a", {"b": 1}]
    assert verified(token).claims["jti"] == "1"


def test_a_wit_svid_does_not_pass_for_a_jwt_svid() -> None:
    """It fails twice over: by its type, and because it names no audience."""
    claims = {k: v for k, v in CA.claims(cnf={"jwk": {}}).items() if k != "aud"}
    assert "typ" in refused(CA.sign_jwt(claims, header={"typ": "wit+jwt"}))
    assert "aud" in refused(CA.sign_jwt(claims, header={"typ": None}))


def test_a_tainted_key_still_verifies_and_one_past_its_end_does_not() -> None:
    key = CA.jwt_authority()
    tainted = BundleMap.of(CA.bundle(jwt_authorities=(replace(key, tainted=True),)))
    assert verified(CA.jwt_svid(), tainted)
    ending = BundleMap.of(CA.bundle(jwt_authorities=(replace(key, expires_at=NOW + SECOND),)))
    assert verified(CA.jwt_svid(), ending)
    with pytest.raises(ExpiredJwtSvid, match="key"):
        verified(CA.jwt_svid(), ending, at=NOW + SECOND)
    assert verified(CA.jwt_svid(), ending, at=NOW + SECOND, leeway=SECOND)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "x",
        "null",
        "[]",
        '"text"',
        "{",
        "{}x",
        '{"sub":1,"sub":2}',
        '{"a":{"b":1,"b":2}}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":"\\ud800"}',
        "[" * 10_000,
        '{"a":' * 10_000,
        '{"a":' * 500 + "1" + "}" * 500,
        b"\xff\xfe{}",
        b'{"a":"\xff"}',
    ],
)
def test_a_header_or_payload_that_is_no_plain_json_object_is_refused(payload: str | bytes) -> None:
    assert refused(with_payload(payload))
    if isinstance(payload, str):
        assert refused(sign_jws(payload, json.dumps(CA.claims()), CA.jwt_key, "ES256"))


def test_a_duplicate_claim_or_header_member_is_refused_although_both_values_are_good() -> None:
    sound = json.dumps(CA.claims())
    assert "twice" in refused(with_payload(sound[:-1] + ', "sub": "spiffe://example.org/admin"}'))
    header = f'{{"alg":"ES256","alg":"ES256","kid":"{CA.key_id}"}}'
    assert "twice" in refused(sign_jws(header, sound, CA.jwt_key, "ES256"))


def test_a_token_of_more_than_64_kilobytes_is_refused() -> None:
    assert "longer" in refused(CA.jwt_svid(note="x" * 65_536))
    assert "longer" in refused("x" * 65_537)
    assert "compact" in refused("x" * 65_536)


def test_the_token_and_its_claims_show_in_no_repr_and_no_error() -> None:
    token = CA.jwt_svid(secret="very-secret")
    shown = repr(JwtSvid.parse_unverified(token)) + repr(verified(token))
    assert token not in shown
    assert "very-secret" not in shown
    with pytest.raises(WrongAudience) as caught:
        verified(token, audience="us")
    assert token not in f"{caught.value}{caught.value!r}{caught.value.fix}"
    assert "them" not in str(caught.value)


def test_claims_cannot_be_changed_in_the_hand_of_whoever_was_given_them() -> None:
    found = verified(CA.jwt_svid())
    with pytest.raises(TypeError):
        found.claims["sub"] = "spiffe://example.org/admin"  # type: ignore[index]  # that is the point
