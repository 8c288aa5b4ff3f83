"""Whatever it is asked, the engine answers, and what it does not understand it does not allow."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from livery_policy.engine.cache import values_key
from livery_policy.model.calls import Call, Peer
from livery_policy.model.decision import Reason
from livery_policy.model.paths import NotNormal, normal_path
from tests.policies import AT, INVENTORY, ORDERS, engine

ALLOW_ALL = engine('@id("all") permit(principal, action, resource);')
EMPTY = engine()

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("/items/1")
names = st.sampled_from(["http", "jwt", "grpc", "path", "headers", "x-tenant", "port", "peer", "__entity"]) | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)
contexts = st.dictionaries(names, json_values, max_size=5) | st.builds(
    lambda path, extra: {"http": {"path": path} | extra}, st.text() | st.just("/"), st.dictionaries(names, json_values)
)
ids = st.sampled_from([ORDERS, INVENTORY, "spiffe://demo.test", ""]) | st.text()
actions = st.sampled_from(["GET", "http:GET", "grpc", "connect", "http", "http:other", "PURGE"]) | st.text()
calls = st.builds(Call, ids, actions, ids, contexts, st.builds(Peer, verified=st.booleans(), ip=st.none() | st.text()))


@settings(max_examples=400, deadline=None)
@given(call=calls)
@example(Call(ORDERS, "GET", INVENTORY, {"http": {"path": "/\ud800"}}))
def test_the_engine_never_raises_and_the_empty_set_never_allows(call: Call) -> None:
    assert EMPTY.judge(call, AT).reason is not Reason.PERMITTED
    assert isinstance(ALLOW_ALL.judge(call, AT).reason, Reason)


@settings(max_examples=400, deadline=None)
@given(call=calls)
def test_what_is_allowed_was_well_formed(call: Call) -> None:
    """Under a policy that permits everything, only a call between two workloads, by one action, in a context of the
    right types, on a path in normal form is permitted; and no call reaches Cedar that Cedar cannot decide.
    """
    judgement = ALLOW_ALL.judge(call, AT)
    assert judgement.reason is not Reason.NO_DECISION, judgement.detail
    if judgement.reason is Reason.PERMITTED and call.action not in {"grpc", "connect"}:
        http = call.context["http"]
        assert isinstance(http, dict)
        assert normal_path(http["path"]) == http["path"]


@given(st.text() | st.text(alphabet="/.%2eEfF5cC;a\\", min_size=1).map(lambda tail: "/" + tail))
def test_a_path_passes_unchanged_or_is_refused(path: str) -> None:
    try:
        assert normal_path(path) == path
    except NotNormal:
        return
    from urllib.parse import unquote

    segments = unquote(path).split("/")
    assert not {".", ".."} & set(segments)
    assert not {"\x00", "\\", ";"} & set(unquote(path))
    assert segments.count("") <= 1 + (path.endswith("/"))


@given(st.text(alphabet="/a%2e", min_size=1), st.text(alphabet="/a%2e", min_size=1))
def test_no_two_accepted_paths_are_one_path_to_an_application(one: str, other: str) -> None:
    """Decoding, which every framework does, maps paths in normal form one to one."""
    from urllib.parse import unquote

    try:
        paths = normal_path("/" + one.lstrip("/")), normal_path("/" + other.lstrip("/"))
    except NotNormal:
        return
    assert (paths[0] == paths[1]) == (unquote(paths[0]) == unquote(paths[1]))


@given(st.dictionaries(st.just("a"), scalars), st.dictionaries(st.just("a"), scalars))
def test_two_values_of_different_type_never_share_a_key(one: dict[str, object], other: dict[str, object]) -> None:
    keys = values_key(one, [("a",)]), values_key(other, [("a",)])
    if keys[0] == keys[1] and keys[0] is not None:
        assert type(one.get("a", ...)) is type(other.get("a", ...))
