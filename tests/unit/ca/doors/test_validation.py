"""What makes an entry valid, in the words that clients of SPIRE's API know."""

from __future__ import annotations

import pytest

from livery.identity import Selector
from livery_ca.entries import validation
from livery_ca.entries.validation import InvalidEntry


@pytest.mark.parametrize(
    "name",
    ["com", "example.com", "*.example.com", "a-hello.com", "xn--ls8h.org", "UPPER.example", "a1.2b", "a" * 63, "my_db"],
)
def test_a_dns_name_is_accepted(name: str) -> None:
    validation.check_dns_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty or only whitespace"),
        (" ", "empty or only whitespace"),
        (".", "domain ends with dot"),
        ("example.com.", "domain ends with dot"),
        ("*.foo.*.bar", "too many wildcards"),
        ("foo.*.bar", "wildcard must be first label"),
        ("*foo.bar", "wildcard must be first label"),
        ("*", "wildcard must be first label"),
        ("\N{PILE OF POO}.com", "name must be ascii"),
        ("-hello.com", "idna error"),
        ("hello-.com", "idna error"),
        ("he--llo.com", "idna error"),
        ("a..b", "idna error"),
        ("a/b", "idna error"),
        ("a b.com", "idna error"),
        ("example.com\n", "idna error"),
        ("a" * 64, "idna error"),
        (".".join(["a" * 60] * 5), "idna error"),
        ("*." + ".".join([*["a" * 63] * 3, "a" * 60]), "idna error"),
    ],
)
def test_a_dns_name_is_refused_with_its_reason(name: str, why: str) -> None:
    with pytest.raises(InvalidEntry) as refused:
        validation.check_dns_name(name)
    assert str(refused.value) == f"invalid DNS name: {why}"


def test_a_wildcard_may_not_cover_another_name_of_the_list() -> None:
    validation.check_wildcards(["example.com", "*.example.com", "foo.bar.example.com"])
    with pytest.raises(InvalidEntry, match=r'^name "foo.example.com" overlaps .*: wildcard overlap$'):
        validation.check_wildcards(["example.com", "*.example.com", "foo.example.com"])


@pytest.mark.parametrize("entry_id", ["", "a", "A-z.0_9", "x" * 255])
def test_an_entry_id_is_accepted(entry_id: str) -> None:
    validation.check_entry_id(entry_id)


@pytest.mark.parametrize(
    ("entry_id", "why"),
    [("x" * 256, "entry ID too long"), ("a b", "invalid characters"), ("a\n", "invalid characters"), ("é", "invalid")],
)
def test_an_entry_id_is_refused(entry_id: str, why: str) -> None:
    with pytest.raises(InvalidEntry, match=f"invalid registration entry: .*{why}"):
        validation.check_entry_id(entry_id)


def test_a_hint_has_1024_characters_at_most() -> None:
    validation.check_hint("x" * 1024)
    with pytest.raises(InvalidEntry, match="hint is too long, max length is 1024 characters"):
        validation.check_hint("x" * 1025)


def test_a_lifetime_is_not_negative() -> None:
    validation.check_ttl(0, "X509SvidTtl")
    with pytest.raises(InvalidEntry, match=r"^invalid registration entry: X509SvidTtl is not set$"):
        validation.check_ttl(-1, "X509SvidTtl")


def test_a_stored_svid_has_selectors_of_one_type_and_no_cache_hint() -> None:
    same = [Selector("aws", "a"), Selector("aws", "b")]
    validation.check_stored_svid(same, no_prefetch=False)
    with pytest.raises(InvalidEntry, match="selector types must be the same when store SVID is enabled"):
        validation.check_stored_svid([*same, Selector("gcp", "c")], no_prefetch=False)
    with pytest.raises(InvalidEntry, match="cache behaviour is incompatible with storable SVIDs"):
        validation.check_stored_svid(same, no_prefetch=True)


@pytest.mark.parametrize(
    ("selectors", "weak"),
    [
        (["unix:path:/usr/bin/web"], True),
        (["unix:sha256:ab"], True),
        (["unix:path:/usr/bin/web", "unix:sha256:ab"], True),
        (["unix:path:/usr/bin/web", "unix:uid:1000"], False),
        (["unix:path:/usr/bin/web", "systemd:id:web.service"], False),
        (["unix:uid:1000"], False),
        (["other:path:/usr/bin/web"], False),
        ([], False),
    ],
)
def test_a_path_or_hash_alone_draws_a_warning(selectors: list[str], weak: bool) -> None:
    assert bool(validation.weak_selectors([Selector.parse(each) for each in selectors])) is weak


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("uid:1000", "write unix:uid:"),
        ("path:/usr/bin/web", "write unix:path:"),
        ("unix:uid:root", "it is a number"),
        ("unix:gid:-1", "it is a number"),
        ("unix:path:bin/web", "it is an absolute path"),
        ("unix:sha256:AB", "64 lower-case hexadecimal digits"),
        ("unix:pid:1", "there are uid, gid"),
        ("unix:uid:0", ""),
        ("unix:user:web", ""),
        ("unix:supplementary_gid:27", ""),
        ("unix:path:/usr/bin/web", ""),
        (f"unix:sha256:{'ab' * 32}", ""),
        ("k8s:ns:shop", ""),
        ("x509pop:subject:cn:node", ""),
    ],
)
def test_a_selector_that_no_process_can_have_draws_a_warning(selector: str, told: str) -> None:
    why = validation.unfound_selectors([Selector.parse("unix:uid:7"), Selector.parse(selector)])
    assert told in why if told else why == ""
