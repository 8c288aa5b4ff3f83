"""The cache's key: typed, complete and bounded."""

from __future__ import annotations

import pytest

from livery_policy.engine.cache import MAX_VALUE, MISSING, DecisionCache, Verdict, project, value_at, values_key
from livery_policy.engine.clauses import WHOLE, context_paths
from livery_policy.engine.slices import whole
from livery_policy.model.decision import Reason
from tests.policies import compiled

YES, NO = Verdict(Reason.PERMITTED, ("a",)), Verdict(Reason.NOT_PERMITTED, ())


def test_true_one_and_one_point_zero_are_three_keys() -> None:
    """In Python True == 1 == 1.0, and a plain tuple would take one for the other."""
    keys = {values_key({"a": value}, [("a",)]) for value in (True, 1, 1.0, "1", False, 0, "")}
    assert len(keys) == 7


def test_what_is_missing_equals_no_value() -> None:
    missing = values_key({}, [("a",)])
    assert missing not in {values_key({"a": v}, [("a",)]) for v in ("MISSING", "missing", 0, False, "")}
    assert value_at({"a": {"b": 1}}, ("a", "b", "c")) is MISSING


def test_containers_stand_in_the_key_by_their_content() -> None:
    lists = [values_key({"a": v}, [("a",)]) for v in (["x", "y"], ["x"], [], ["xy"], {"x": ["y"]}, {})]
    assert len(set(lists)) == 6


def test_values_of_other_paths_are_not_in_the_key() -> None:
    assert values_key({"a": 1, "b": 2}, [("a",)]) == values_key({"a": 1, "b": 3}, [("a",)])


def test_a_long_value_is_not_kept() -> None:
    assert values_key({"a": "x" * (MAX_VALUE + 1)}, [("a",)]) is None
    assert values_key({"a": ["x" * MAX_VALUE]}, [("a",)]) is None


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = DecisionCache(100)
    cache.put("kept", YES)
    for n in range(1000):
        cache.put(n, NO)
        assert cache.get("kept") is YES
        assert len(cache) <= 100
    assert cache.get(0) is None


@pytest.mark.parametrize(
    ("condition", "paths"),
    [
        ('context.http.path == "/"', {("http", "path")}),
        ('context.http has query && context.http.query == "x"', {("http", "query")}),
        ('context.http.headers has "x-tenant"', {("http", "headers", "x-tenant")}),
        ('context has jwt && context.jwt.sub == "s"', {("jwt",)}),
        ("context has jwt.groups", {("jwt",)}),
        ("context == context", {WHOLE}),
        ('context == context || context.http.path == "/"', {WHOLE}),
        ("context.http == context.http", {("http",)}),
        (
            'if context.peer.verified then context.http.host == "a" else principal.path == "b"',
            {("peer", "verified"), ("http", "host")},
        ),
        (
            'if principal.path == "b" then resource.path == "c" else context.http.host == "a"',
            {("http", "host")},
        ),
        (
            'principal is Livery::Workload in (if context.http.host == "a" then resource else resource)',
            {("http", "host")},
        ),
        (
            '[context.http.host].contains("x") && {a: context.http.method}.a == "GET"',
            {("http", "host"), ("http", "method")},
        ),
        ('!(context.http.path like "/a*")', {("http", "path")}),
        ('principal is Livery::Workload in Livery::TrustDomain::"a.test"', set()),
        ("resource.path == principal.path", set()),
    ],
)
def test_every_path_that_a_policy_reads_is_found(condition: str, paths: set[tuple[str, ...]]) -> None:
    """One forgotten would be cut from the context and left out of the key."""
    text = f'@id("a") permit(principal, action == Livery::Action::"http:GET", resource) when {{ {condition} }};'
    (policy,) = compiled(text).policies
    assert policy.paths == paths


@pytest.mark.parametrize("condition", ["context == context", 'context has now && context.now > datetime("2026-01-01")'])
def test_a_slice_that_reads_everything_or_the_time_is_not_cached(condition: str) -> None:
    text = f'@id("a") permit(principal, action == Livery::Action::"http:GET", resource) when {{ {condition} }};'
    assert not whole(compiled(text)).cacheable


def test_a_projection_keeps_the_records_on_the_way_and_nothing_else() -> None:
    context = {"http": {"path": "/", "headers": {"a": ["1"], "b": ["2"]}}, "peer": {"verified": True}}
    assert project(context, [("http", "headers", "a")]) == {"http": {"headers": {"a": ["1"]}}}
    assert project(context, [("http", "headers", "c"), ("jwt", "sub")]) == {"http": {"headers": {}}}
    assert project(context, [WHOLE]) == context
    assert project(context, []) == {}


def test_an_unknown_node_raises_instead_of_being_passed_over() -> None:
    from typing import Any, cast

    from livery_policy.cedar import pst
    from livery_policy.engine.clauses import UnknownNode

    anywhere = pst.ScopeAny()
    strange = pst.Template("x", "permit", anywhere, anywhere, anywhere, (pst.When(cast("Any", object())),), {})
    with pytest.raises(UnknownNode):
        context_paths(strange)
