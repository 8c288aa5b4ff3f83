"""SPIFFE IDs and trust domains: the rows ID-1 to ID-10 of docs/conformance.md, and what the value types add."""

from __future__ import annotations

import dataclasses

import pytest

from livery.identity import (
    BundleMap,
    IdentityError,
    InvalidJwtSvid,
    InvalidSpiffeId,
    InvalidTrustDomain,
    InvalidX509Svid,
    SpiffeId,
    TrustDomain,
    UntrustedJwtSvid,
    UntrustedX509Svid,
    leaf_id,
    parse_chain,
    verify_jwt,
    verify_x509,
)
from tests.pki import NOW, TestCa, Twist, base64url, sign_jws

EXAMPLE = TrustDomain("example.org")
LONGEST_NAME = "a" * 255


def refused(uri: str) -> InvalidSpiffeId:
    with pytest.raises(InvalidSpiffeId) as caught:
        SpiffeId.parse(uri)
    return caught.value


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe",
        "spiffe:",
        "spiffe:/",
        "spiffe:example.org/a",
        "spiffe:/example.org/a",
        "//example.org/a",
        "/a",
        "example.org/a",
        "http://example.org/a",
        "https://example.org/a",
        "SPIFFE://example.org/a",
        "Spiffe://example.org/a",
        "spiffes://example.org/a",
        " spiffe://example.org/a",
        "spiffe://",
        "spiffe:///",
        "spiffe:///a",
        "spiffe://example.org/a?",
        "spiffe://example.org/a?b=c",
        "spiffe://example.org?b",
        "spiffe://example.org/a#",
        "spiffe://example.org/a#b",
        "spiffe://example.org#b",
    ],
)
def test_ID_1_a_text_that_is_no_spiffe_uri_or_has_a_query_or_fragment_is_refused(uri: str) -> None:
    refused(uri)


def test_ID_1_a_spiffe_uri_is_read_into_its_trust_domain_and_path() -> None:
    spiffe_id = SpiffeId.parse("spiffe://example.org/ns/shop/sa/orders")
    assert spiffe_id.trust_domain == EXAMPLE
    assert spiffe_id.path == "/ns/shop/sa/orders"
    assert spiffe_id.segments == ("ns", "shop", "sa", "orders")
    assert str(spiffe_id) == "spiffe://example.org/ns/shop/sa/orders"


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://user@example.org/a",
        "spiffe://user:secret@example.org/a",
        "spiffe://@example.org/a",
        "spiffe://:@example.org/a",
        "spiffe://example.org:80/a",
        "spiffe://example.org:/a",
        "spiffe://:80/a",
        "spiffe://:/a",
        "spiffe://@/a",
    ],
)
def test_ID_2_user_information_a_port_and_an_empty_host_are_refused(uri: str) -> None:
    refused(uri)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Example.org",
        "EXAMPLE.ORG",
        "example.orG",
        "exam%41ple.org",
        "example%2eorg",
        "exam ple.org",
        "example.org ",
        "example.org\n",
        "\nexample.org",
        "example.org\r",
        "example.org\t",
        "example.org\0",
        "exam\0ple.org",
        "\N{KELVIN SIGN}.org",
        "exämple.org",
        "xn--exmple-cua.org\N{ZERO WIDTH SPACE}",
        "example。org",
        "٣.org",
        "example,org",
        "example!org",
        "example~org",
        "example+org",
        "example*org",
        "example\\org",
    ],
)
def test_ID_3_a_trust_domain_has_lower_case_letters_digits_dots_dashes_and_underscores_only(name: str) -> None:
    with pytest.raises(InvalidTrustDomain):
        TrustDomain.parse(name)
    refused(f"spiffe://{name}/a")
    refused(f"spiffe://{name}")


@pytest.mark.parametrize(
    "name", ["example.org", "a", "0", "a-b_c.d", "-", "_", "a..b", ".a", "a.", "xn--exmple-cua.org"]
)
def test_ID_3_every_allowed_character_is_accepted_wherever_it_stands(name: str) -> None:
    assert SpiffeId.parse(f"spiffe://{name}/a").trust_domain.name == name


def test_ID_4_a_dotted_quad_is_a_trust_domain_like_any_other() -> None:
    spiffe_id = SpiffeId.parse("spiffe://10.0.0.1/a")
    assert spiffe_id.trust_domain == TrustDomain("10.0.0.1")
    assert str(spiffe_id.trust_domain) == "10.0.0.1"


def test_ID_4_spellings_that_name_one_ip_address_stay_different_trust_domains() -> None:
    names = ["10.0.0.1", "10.1", "167772161", "0x0a000001", "010.0.0.1"]
    assert len({TrustDomain(n) for n in names}) == len(names)


@pytest.mark.parametrize("host", ["[::1]", "::1", "[2001:db8::1]", "fe80::1%25eth0"])
def test_ID_4_an_ipv6_address_is_no_trust_domain(host: str) -> None:
    refused(f"spiffe://{host}/a")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/a/",
        "/a//b",
        "//a",
        "/./a",
        "/../a",
        "/a/.",
        "/a/..",
        "/a/../b",
        "/.",
        "/..",
        "/%41",
        "/a%2fb",
        "/%2e%2e",
        "/a b",
        "/a\n",
        "/a\n/b",
        "/a\0",
        "/a\tb",
        "/a\\b",
        "/a:b",
        "/a@b",
        "/a~b",
        "/a+b",
        "/a;b",
        "/a=b",
        "/*",
        "/ä",
        "/\N{KELVIN SIGN}",
        "/٣",
    ],
)
def test_ID_5_a_path_with_an_empty_or_relative_segment_a_final_slash_or_another_character_is_refused(path: str) -> None:
    refused(f"spiffe://example.org{path}")
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.of(EXAMPLE, path)


@pytest.mark.parametrize("path", ["", "/a", "/A", "/a/b", "/...", "/..a", "/a..", "/.a", "/-", "/_", "/0", "/a.b-c_D9"])
def test_ID_5_a_path_of_allowed_segments_is_accepted(path: str) -> None:
    assert SpiffeId.parse(f"spiffe://example.org{path}") == SpiffeId.of(EXAMPLE, path)


def test_ID_5_a_path_must_begin_with_a_slash() -> None:
    with pytest.raises(InvalidSpiffeId, match="slash"):
        SpiffeId.of(EXAMPLE, "a")


def test_ID_6_a_uri_of_2048_bytes_is_accepted_and_one_of_2049_refused() -> None:
    start = "spiffe://example.org/"
    assert len(str(SpiffeId.parse(start + "a" * (2048 - len(start))))) == 2048
    assert "2048" in str(refused(start + "a" * (2049 - len(start))))
    assert "2048" in str(refused(start + "a" * 100_000 + "%")), "and no character of it was looked at"


def test_ID_6_a_trust_domain_of_255_bytes_is_accepted_and_one_of_256_refused() -> None:
    assert TrustDomain(LONGEST_NAME).name == LONGEST_NAME
    with pytest.raises(InvalidTrustDomain, match="256"):
        TrustDomain(LONGEST_NAME + "a")
    refused(f"spiffe://{LONGEST_NAME}a/b")


def test_ID_7_an_upper_case_trust_domain_is_refused_and_not_lowered() -> None:
    """2.4 calls the domain case-insensitive and 2.1 demands lower case: we accept the one spelling both allow."""
    refused("spiffe://EXAMPLE.org/a")
    with pytest.raises(InvalidTrustDomain):
        TrustDomain("Example.org")


def test_ID_7_paths_differ_by_case() -> None:
    assert SpiffeId.parse("spiffe://example.org/A") != SpiffeId.parse("spiffe://example.org/a")


def test_ID_8_the_authority_of_a_trust_domain_has_the_id_without_a_path() -> None:
    assert str(SpiffeId(EXAMPLE)) == "spiffe://example.org"
    assert SpiffeId(EXAMPLE).is_root
    assert SpiffeId(EXAMPLE).member_of(EXAMPLE)
    assert not SpiffeId.parse("spiffe://example.org/a").is_root


def test_ID_9_an_id_changed_after_signing_is_refused_in_a_certificate() -> None:
    ca = TestCa("example.org")
    svid = ca.issue("/orders")
    changed = parse_chain(svid.chain_der().replace(b"/orders", b"/ordera"))
    assert leaf_id(changed[0]).path == "/ordera"
    with pytest.raises(UntrustedX509Svid):
        verify_x509(changed, BundleMap.of(ca.bundle()), NOW)


def test_ID_9_an_id_changed_after_signing_is_refused_in_a_token() -> None:
    ca = TestCa("example.org")
    header, _, signature = ca.jwt_svid("/orders").split(".")
    _, payload, _ = ca.jwt_svid("/ordera").split(".")
    with pytest.raises(UntrustedJwtSvid, match="signature"):
        verify_jwt(f"{header}.{payload}.{signature}", BundleMap.of(ca.bundle()), "them", NOW)


def test_ID_10_a_document_of_no_svid_format_is_refused() -> None:
    """A certificate without a SPIFFE ID, a bare ID, a signed text, an encrypted token: none is an SVID."""
    ca = TestCa("example.org")
    bundles = BundleMap.of(ca.bundle())
    with pytest.raises(InvalidX509Svid):
        verify_x509(ca.issue_chain("/a", Twist(uris=[], dns_names=["a.example.org"])), bundles, NOW)
    signed_text = sign_jws({"alg": "ES256", "kid": ca.key_id}, "spiffe://example.org/a", ca.jwt_key, "ES256")
    encrypted = ".".join(base64url(b"x") for _ in range(5))
    for text in ["spiffe://example.org/a", signed_text, encrypted]:
        with pytest.raises(InvalidJwtSvid):
            verify_jwt(text, bundles, "them", NOW)


def test_a_trust_domain_is_read_from_its_name_or_its_id_exactly() -> None:
    assert TrustDomain.parse("example.org") == TrustDomain.parse("spiffe://example.org") == EXAMPLE
    for text in [
        "spiffe://example.org/",
        "spiffe://example.org/a",
        "spiffe://spiffe://a",
        "spiffe://",
        "example.org/a",
    ]:
        with pytest.raises(InvalidTrustDomain):
            TrustDomain.parse(text)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_trust_domain_that_is_a_relative_path_is_refused_although_the_letter_allows_it(name: str) -> None:
    with pytest.raises(InvalidTrustDomain, match="relative path"):
        TrustDomain(name)
    refused(f"spiffe://{name}/a")
    assert TrustDomain("...").name == "..."


def test_an_id_cannot_be_made_around_the_parser_or_changed() -> None:
    with pytest.raises(InvalidSpiffeId):
        SpiffeId(EXAMPLE, "/a/../b")
    spiffe_id = SpiffeId(EXAMPLE, "/a")
    with pytest.raises(InvalidSpiffeId):
        dataclasses.replace(spiffe_id, path="/a/")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spiffe_id.path = "/b"  # type: ignore[misc]  # that is the point


def test_an_id_is_equal_to_another_id_only_and_never_to_a_text() -> None:
    spiffe_id = SpiffeId.parse("spiffe://example.org/a")
    assert spiffe_id == SpiffeId.of(EXAMPLE, "/a")
    assert hash(spiffe_id) == hash(SpiffeId.of(EXAMPLE, "/a"))
    assert spiffe_id != "spiffe://example.org/a"


def test_ids_sort_by_trust_domain_and_then_path() -> None:
    texts = ["spiffe://b.org/a", "spiffe://a.org/b", "spiffe://a.org"]
    assert [str(i) for i in sorted(map(SpiffeId.parse, texts))] == sorted(texts)


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        ("/spire", True),
        ("/spire/server", True),
        ("/spire/agent/x", True),
        ("/spirex", False),
        ("/a/spire", False),
        ("", False),
    ],
)
def test_paths_of_servers_and_agents_are_reserved(path: str, *, reserved: bool) -> None:
    assert SpiffeId.of(EXAMPLE, path).is_reserved is reserved


def test_an_id_is_a_member_of_its_own_trust_domain_and_of_no_subdomain_or_parent() -> None:
    spiffe_id = SpiffeId.parse("spiffe://a.example.org/x")
    assert spiffe_id.member_of(TrustDomain("a.example.org"))
    assert not spiffe_id.member_of(EXAMPLE)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("example.org/a", "no spiffe:// URI"),
        ("spiffe:///a", "its trust domain: the name is empty"),
        (f"spiffe://{'a' * 256}/b", "256 characters are too many"),
        ("spiffe://Example.org/a", "its trust domain: it holds 'E'"),
        ("spiffe://example.org/a/", "the path ends with a slash"),
        ("spiffe://example.org/a//b", "an empty segment"),
        ("spiffe://example.org/a/../b", "a '.' or '..' segment"),
        ("spiffe://example.org/./b", "a '.' or '..' segment"),
        ("spiffe://example.org/a%2f", "the path holds '%'"),
    ],
)
def test_each_refusal_names_the_one_thing_that_is_wrong(uri: str, reason: str) -> None:
    assert reason in refused(uri).why


def test_the_id_of_a_trust_domain_has_no_segments() -> None:
    assert SpiffeId(EXAMPLE).segments == ()


def test_a_refusal_says_what_is_wrong_and_how_to_write_it_and_stays_short() -> None:
    error = refused("spiffe://example.org/a b")
    assert "' '" in error.why
    assert "spiffe://example.org/" in error.fix
    assert len(str(refused("spiffe://example.org/" + "\0" * 100_000))) < 1000
    assert isinstance(error, IdentityError)
