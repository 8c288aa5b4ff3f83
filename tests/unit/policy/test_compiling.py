"""One error anywhere and there is no set; every finding has its file and line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from livery_policy.engine.compiling import compile_policies
from livery_policy.engine.source import MAX_DEPTH, PolicyFile, conjuncts, depth, statements
from livery_policy.errors import InvalidPolicies
from livery_policy.findings import Finding
from livery_policy.model.vocabulary import Vocabulary
from tests.policies import READ_ITEMS, VOCABULARY, compiled

ANY = "permit(principal, action, resource);"
GET = 'permit(principal, action == Livery::Action::"http:GET", resource)'


def findings(text: str, stem: str = "demo") -> list[Finding]:
    with pytest.raises(InvalidPolicies) as refused:
        compile_policies([PolicyFile(stem, f"{stem}.cedar", text)], VOCABULARY)
    return list(refused.value.findings)


def test_a_policys_id_is_its_files_stem_and_its_own() -> None:
    (policy,) = compiled(READ_ITEMS).policies
    assert (policy.id, policy.where) == ("p0/orders-may-read", "p0.cedar:2")


def test_the_empty_set_is_a_set() -> None:
    assert compile_policies([], VOCABULARY).policies == ()
    empty = compiled("// nothing yet\n")
    assert [f.code for f in empty.warnings] == ["empty"]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("permit(principal, action, resource", "syntax", 1),
        ('\n\n@id("a")\npermit(principal, action, resource) when { 1 + };', "syntax", 3),
        (f'@id("a") {ANY}\n@id("b") permit(principal, "x);', "syntax", 2),
        (f'@id("a") {ANY}\n\n{ANY}', "missing-id", 3),
        (f'@id("") {ANY}', "bad-id", 1),
        (f'@id("a/b") {ANY}', "bad-id", 1),
        (f'@id("a b") {ANY}', "bad-id", 1),
        (f'@id("a") {ANY}\n// @id("b")\n@id("a")\n{ANY}', "duplicate-id", 3),
        (f'@id("a") @id("b") {ANY}', "syntax", 1),
        ('@id("a") permit(principal == ?principal, action, resource);', "template", 1),
        ('@id("a") permit(principal, action == Livery::Action::"http:FETCH", resource);', "schema", 1),
        ('@id("a") permit(principal == User::"x", action, resource);', "schema", 1),
        (
            '@id("a") permit(principal, action == Livery::Action::"http:GET", resource) when { context.user == "x" };',
            "schema",
            1,
        ),
        ('@id("a") permit(principal, action, resource) when { context.http.path == "/" };', "schema", 1),
        (
            f'@id("a") {GET}\nwhen {{ context.jwt.sub == "x" }};',
            "unguarded-attribute",
            1,
        ),
        (
            f'@id("a") {GET} when {{ context.http.headers["x-tenant"].contains("a") }};',
            "unguarded-attribute",
            1,
        ),
        (
            '@id("a") permit(principal == Livery::Workload::"spiffe://Demo.test/a", action, resource);',
            "impossible-entity",
            1,
        ),
        (
            '@id("a") forbid(principal in Livery::TrustDomain::"spiffe://a.test", action, resource);',
            "impossible-entity",
            1,
        ),
        ('@id("a") forbid(principal in Livery::PathPrefix::"/ns/a", action, resource);', "impossible-entity", 1),
        (
            '@id("a") forbid(principal in Livery::PathPrefix::"spiffe://a.test", action, resource);',
            "impossible-entity",
            1,
        ),
    ],
)
def test_a_malformed_policy_is_found_with_its_line(text: str, code: str, line: int) -> None:
    found = [f for f in findings(text) if f.is_error]
    assert (code, line) in {(f.code, f.line) for f in found}
    assert all(str(f).startswith(f"demo.cedar:{f.line}: error:") for f in found)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ('context.http.headers has "x-unknown"', 'context.http.headers never has "x-unknown"; list it in `headers`'),
        ("context has jwt && context.jwt has level", 'context.jwt never has "level"; list it in `claims`'),
        ("context has user", 'context never has "user"'),
        ("context.http has user.name", 'context.http never has "user"'),
        ("context.peer has port", 'context.peer never has "port"'),
        ("principal has groups", 'principal never has "groups"'),
        ("resource has segments", 'resource never has "segments"'),
    ],
)
def test_has_on_an_attribute_that_cannot_exist_is_an_error(condition: str, told: str) -> None:
    """The validator takes it for false and is content: a forbid behind it would never hold."""
    found = findings(f'@id("a") {GET} when {{ {condition} }};'.replace("permit", "forbid"))
    assert [(f.code, f.message) for f in found if f.is_error] == [("unknown-attribute", told)]


@pytest.mark.parametrize(
    "action",
    [
        "action",
        'action in Livery::Action::"call"',
        'action in [Livery::Action::"grpc", Livery::Action::"connect"]',
        'action in [Livery::Action::"http:GET", Livery::Action::"connect", Livery::Action::"grpc"]',
    ],
)
def test_has_tells_the_actions_apart(action: str) -> None:
    assert compiled(
        f'@id("a") forbid(principal, {action}, resource) when {{ context has sni || context has grpc }};'
    ).policies


@pytest.mark.parametrize(
    ("action", "name"),
    [
        ('action == Livery::Action::"grpc"', "http"),
        ('action == Livery::Action::"grpc"', "sni"),
        ('action == Livery::Action::"connect"', "jwt"),
        ('action == Livery::Action::"http:GET"', "grpc"),
        ('action in Livery::Action::"http:write"', "sni"),
        ('action in Livery::Action::"http"', "grpc"),
        ('action in [Livery::Action::"http:read", Livery::Action::"connect"]', "grpc"),
    ],
)
def test_has_on_an_attribute_of_other_actions_is_an_error_too(action: str, name: str) -> None:
    """A forbid on gRPC calls whose condition asks for HTTP holds for none of them, and the validator is content."""
    found = findings(f'@id("a") forbid(principal, {action}, resource) when {{ context has {name} }};')
    assert [(f.code, f.message) for f in found] == [("unknown-attribute", f'context never has "{name}"')]


def test_all_errors_of_all_files_are_found_at_once() -> None:
    files = [PolicyFile("a", "a.cedar", ANY), PolicyFile("b", "b.cedar", f"{ANY} permit(x);")]
    with pytest.raises(InvalidPolicies) as refused:
        compile_policies(files, VOCABULARY)
    assert [(f.file, f.code) for f in refused.value.findings] == [
        ("a.cedar", "missing-id"),
        ("b.cedar", "missing-id"),
        ("b.cedar", "syntax"),
    ]
    assert "a.cedar:1" in str(refused.value)


def test_the_same_id_in_two_files_is_two_policies() -> None:
    assert [p.id for p in compiled(READ_ITEMS, READ_ITEMS).policies] == ["p0/orders-may-read", "p1/orders-may-read"]


def test_two_files_of_one_stem_cannot_share_an_id() -> None:
    files = [PolicyFile("a", "x/a.cedar", f'@id("i") {ANY}'), PolicyFile("a", "y/a.cedar", f'@id("i") {ANY}')]
    with pytest.raises(InvalidPolicies, match=r"taken by x/a\.cedar:1"):
        compile_policies(files, VOCABULARY)


@pytest.mark.parametrize("stem", ["", ".hidden", "a b", "a/b", "ä"])
def test_a_file_name_that_cannot_begin_an_id_is_refused(stem: str) -> None:
    assert [f.code for f in findings(f'@id("a") {ANY}', stem)] == ["file-name"]


def test_selectors_draw_a_warning_while_nobody_feeds_them() -> None:
    text = '@id("a") permit(principal, action, resource) when { principal.selectors.contains("unix:uid:0") };'
    assert [f.code for f in compiled(text).warnings] == ["no-selectors"]


def test_more_global_policies_than_the_budget_draw_a_warning() -> None:
    text = "\n".join(f'@id("g{n}") {ANY}' for n in range(22))
    assert [f.code for f in compiled(text).warnings] == ["global-budget"] * 2
    for scope in (
        'principal == Livery::Workload::"spiffe://a.test/a"',
        'resource == Livery::Service::"spiffe://a.test/a"',
    ):
        named = text.replace(scope.split(" ", 1)[0], scope)
        assert compiled(named).warnings == ()


def test_the_digest_covers_every_text_every_name_and_the_schema() -> None:
    base = compiled(READ_ITEMS).version.digest
    others = [
        compiled(READ_ITEMS + "\n// a comment\n"),
        compiled("", READ_ITEMS),
        compiled(READ_ITEMS, vocabulary=Vocabulary()),
    ]
    assert base.startswith("sha256:")
    assert len({base, *(c.version.digest for c in others)}) == 4
    assert compiled(READ_ITEMS).version.digest == base


def test_no_two_sets_run_together_to_one_digest() -> None:
    """A policy in another file has another id; and where one text ends and the next begins is part of the set."""
    sets = [
        [PolicyFile("ab", "ab.cedar", "//x")],
        [PolicyFile("b", "b.cedar", "//x")],
        [PolicyFile("a", "a.cedar", ""), PolicyFile("b", "b.cedar", "//x")],
    ]
    assert len({compile_policies(files, VOCABULARY).version.digest for files in sets}) == len(sets)


def test_statements_end_at_a_semicolon_that_is_in_no_string_or_comment() -> None:
    text = 'a ";" b // c; d\n ; // e;\n\n"\\";" f;g'
    assert [(s.text, s.line, s.ended) for s in statements(text)] == [
        ('a ";" b // c; d\n ;', 1, True),
        ('"\\";" f;', 4, True),
        ("g", 4, False),
    ]


# Each is `n` levels deep, by another construct of the language.
DEEP: dict[str, Callable[[int], str]] = {
    "and": lambda n: " && ".join(["true"] * (n + 1)),
    "or": lambda n: " || ".join(["true"] * (n + 1)),
    "parentheses": lambda n: "(" * n + "true" + ")" * n,
    "sets": lambda n: "[" * n + "1" + "]" * n + " == 1",
    "records": lambda n: "{a:" * n + "1" + "}" * n + " == 1",
    "ifs": lambda n: "if true then " * n + "true" + " else true" * n,
    "attributes": lambda n: "context" + ".a" * n,
    "indexes": lambda n: "context" + '["a"]' * n,
    "methods": lambda n: "[1]" + ".contains(1)" * n,
    "sums": lambda n: "1" + " + 1" * n + " == 1",
    "products": lambda n: "1" + " * 1" * n + " == 1",
    "functions": lambda n: "ip(" * n + '"1"' + ")" * n,
    "has": lambda n: "context has " + ".".join(["a"] * n),
    "chains in brackets": lambda n: "(" * (n // 10) + "true" + " && true && true)" * (n // 10 * 4),
    "a bracket in the last element": lambda n: "[[1], 1 + 2, " * n + "1" + "]" * n + " == 1",
}


@pytest.mark.parametrize("construct", DEEP)
def test_a_policy_that_is_too_deep_for_a_stack_is_a_finding_and_not_the_end_of_the_process(construct: str) -> None:
    """Cedar walks the whole tree before it counts its levels; a thousand of them overflow the stack of a thread."""
    text = f'@id("a") {GET} when {{ {DEEP[construct](20_000)} }};'
    (found,) = findings(text)
    assert (found.code, f"deeper than {MAX_DEPTH} levels" in found.message) == ("syntax", True)


@pytest.mark.parametrize("construct", [each for each in DEEP if each != "chains in brackets"])
def test_no_construct_is_deeper_than_it_is_counted(construct: str) -> None:
    assert all(depth(DEEP[construct](n)) >= n for n in (1, 5, 50))


def test_what_is_wide_or_as_deep_as_cedar_allows_is_loaded() -> None:
    links = " && ".join(['context.http.headers has "x-tenant" && !(context.http.path like "/a.b/[(*")'] * 45)
    names = ", ".join(f'"/items/{n}"' for n in range(5000))
    nested = "context.http.path == context.http.host && (" * 40 + "true" + ")" * 40
    for condition in (links, f"[{names}].contains(context.http.path)", nested):
        assert compiled(f'@id("a") {GET} when {{ {condition} }};').policies


def test_conditions_are_told_apart_as_they_are_written() -> None:
    assert conjuncts('a == "x && y" && (b && c) &&\n  d') == ['a == "x && y"', "(b && c)", "d"]


@pytest.mark.parametrize(
    ("condition", "texts"),
    [
        (
            'when { context.http.path == "/" && context.http.host == "h" }',
            ['context.http.path == "/"', 'context.http.host == "h"'],
        ),
        (
            'when { context.http.path == "/" || context.http.host == "h" && true }',
            ['context.http.path == "/" || context.http.host == "h" && true'],
        ),
        ('unless { context.http.path\n == "/" }', ['unless { context.http.path == "/" }']),
        ("when { true } unless { false } when { 1 < 2 }", ["true", "unless { false }", "1 < 2"]),
        ("", []),
    ],
)
def test_a_condition_is_shown_as_its_author_wrote_it(condition: str, texts: list[str]) -> None:
    text = f'@id("a") permit(principal, action == Livery::Action::"http:GET", resource) {condition};'
    (policy,) = compiled(text).policies
    assert len(policy.condition_texts) == len(policy.conditions)
    assert [t.replace("(", "").replace(")", "") for t in policy.condition_texts] == texts
