"""A call is read into Cedar's terms, or denied by the class of what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from livery_policy import cedar
from livery_policy.model.calls import (
    Asked,
    Call,
    CallReader,
    HttpMessage,
    Peer,
    Unreadable,
    connect_call,
    grpc_call,
    http_call,
)
from livery_policy.model.decision import Reason
from tests.policies import INVENTORY, ORDERS, VOCABULARY, get

VERIFIED = Peer(verified=True)


def read(action: str, context: Mapping[str, Any], peer: Peer = VERIFIED) -> Asked | Unreadable:
    return CallReader(VOCABULARY).read(Call(ORDERS, action, INVENTORY, context, peer))


def http(**more: object) -> dict[str, Any]:
    return {"http": {"path": "/items/1"} | more}


def refusal(action: str, context: Mapping[str, Any]) -> Unreadable:
    found = read(action, context)
    assert isinstance(found, Unreadable)
    return found


def asked(action: str, context: Mapping[str, Any]) -> Any:
    found = read(action, context)
    assert isinstance(found, Asked), found
    return found


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("GET", "http:GET"),
        ("http:GET", "http:GET"),
        ("DELETE", "http:DELETE"),
        ("PURGE", "http:other"),
        ("http:PURGE", "http:other"),
        ("http:get", "http:other"),
        ("TRACE", "http:other"),
    ],
)
def test_an_action_is_named_by_its_method(name: str, action: str) -> None:
    assert asked(name, http()).action == action


@pytest.mark.parametrize(
    "name", ["", "get", "read", "http", "call", "http:read", "http:write", "http:", "GET /", "G" * 33, "connect ", "ÄB"]
)
def test_what_names_no_single_action_is_a_bad_action(name: str) -> None:
    """Groups are for policies; a lower-case method is another token than the upper-case one."""
    assert refusal(name, http()).reason is Reason.BAD_ACTION


def test_the_method_of_an_unknown_action_stands_in_the_context() -> None:
    assert asked("PURGE", http()).context["http"]["method"] == "PURGE"
    assert asked("http:other", http(method="PURGE")).context["http"]["method"] == "PURGE"


@pytest.mark.parametrize(
    ("action", "method"),
    [("GET", "DELETE"), ("http:other", "GET"), ("PURGE", "GET"), ("GET", "get"), ("GET", "G T")]
    + [("http:other", method) for method in ("", "G T", "GET ", "P\r\nX: y", "\u00c4", "X" * 33)],
)
def test_an_action_and_a_method_that_disagree_are_denied(action: str, method: str) -> None:
    """Else one of the two would be let through on the strength of the other."""
    assert refusal(action, http(method=method)).reason is Reason.BAD_CONTEXT


def test_http_other_needs_its_method() -> None:
    assert "method is missing" in refusal("http:other", http()).detail


@pytest.mark.parametrize(
    "context",
    [{}, {"http": {}}, {"http": None}, {"http": []}, {"http": "x"}, {"grpc": {"path": "/a.B/C"}}],
)
def test_a_required_name_that_is_missing_or_no_object_is_bad_context(context: dict[str, Any]) -> None:
    assert refusal("GET", context).reason is Reason.BAD_CONTEXT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", None),
        ("path", 1),
        ("path", 1.5),
        ("path", ["/"]),
        ("host", None),
        ("host", True),
        ("host", {}),
        ("port", "80"),
        ("port", 80.0),
        ("port", True),
        ("port", 0),
        ("port", 65536),
        ("port", 2**64),
        ("port", None),
        ("query", None),
        ("query", 1),
        ("headers", []),
        ("headers", None),
        ("method", 5),
        ("method", None),
        ("headers", {"x-tenant": "a"}),
        ("headers", {"x-tenant": None}),
        ("headers", {"x-tenant": [1]}),
        ("headers", {"x-tenant": [["a"]]}),
        ("query", "\ud800"),
        ("host", "a b"),
        ("host", "a:80"),
        ("host", "[::g]"),
        ("host", "[1.2.3.4]"),
        ("host", "[:::]"),
    ],
)
def test_a_known_name_of_the_wrong_type_is_bad_context_and_named(name: str, value: object) -> None:
    found = refusal("GET", http(**{name: value}))
    assert (found.reason, f"context.http.{name}" in found.detail) == (Reason.BAD_CONTEXT, True)


@pytest.mark.parametrize("port", [None, "1", 1.0, True, 2**63, 0])
def test_a_connections_port_is_a_port(port: object) -> None:
    assert refusal("connect", {"port": port}).reason is Reason.BAD_CONTEXT


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"iss": "i", "sub": "s"},
        {"iss": 1, "sub": "s", "aud": "a"},
        {"iss": "i", "sub": "s", "aud": [1]},
        {"iss": "i", "sub": "s", "aud": "a", "groups": {"a": 1}},
        [],
        "token",
        None,
    ],
)
def test_claims_are_complete_and_typed_or_the_context_is_bad(claims: object) -> None:
    assert refusal("GET", http() | {"jwt": claims}).reason is Reason.BAD_CONTEXT


def test_an_audience_may_be_one_string_or_several() -> None:
    for aud in ("a", ["a"]):
        found = asked("GET", http() | {"jwt": {"iss": "i", "sub": "s", "aud": aud, "groups": "g"}})
        assert found.context["jwt"] == {"iss": "i", "sub": "s", "aud": ["a"], "groups": ["g"]}


def test_unknown_names_are_dropped_and_named() -> None:
    context = http(colour="red", headers={"x-unknown": ["1"], "x-tenant": ["a"]}) | {"when": [None, 1.5]}
    found = asked("GET", context)
    assert found.context["http"]["headers"] == {"x-tenant": ["a"]}
    assert set(found.dropped) == {"context.http.colour", "context.http.headers.x-unknown", "context.when"}


def test_the_list_of_dropped_names_is_bounded() -> None:
    found = asked("GET", http() | {f"n{n}" * 100: n for n in range(1000)})
    assert len(found.dropped) == 21
    assert all(len(name) < 100 for name in found.dropped)


@pytest.mark.parametrize("name", ["peer", "now"])
def test_peer_and_now_are_never_taken_from_the_caller(name: str) -> None:
    found = asked("GET", http() | {name: {"verified": True, "ip": "10.0.0.1"}})
    assert found.context["peer"] == {"verified": True}
    assert "now" not in found.context
    assert found.dropped == (f"context.{name}",)


def test_header_names_have_no_case() -> None:
    """Else a forbid on x-role would be spelled around by X-Role."""
    assert asked("GET", http(headers={"X-Tenant": ["a"]})).context["http"]["headers"] == {"x-tenant": ["a"]}


def test_a_header_in_two_spellings_is_bad_context() -> None:
    headers = {"X-Tenant": ["a"], "x-tenant": ["b"]}
    assert refusal("GET", http(headers=headers)).reason is Reason.BAD_CONTEXT


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("Inventory.Demo.Test.", "inventory.demo.test"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[2001:db8:0:0::0001]", "[2001:db8::1]"),
        ("[2001:0db8:0000:0000:0000:0000:0.0.0.1]", "[2001:db8::1]"),
    ],
)
def test_a_host_has_one_spelling(host: str, seen: str) -> None:
    """Else a forbid on a host would be spelled around."""
    assert asked("GET", http(host=host)).context["http"]["host"] == seen


@pytest.mark.parametrize("path", ["/a/../b", "/%2e%2e/", "/a?x=1", "//", "relative"])
def test_every_door_sees_a_path_in_normal_form_or_a_denial(path: str) -> None:
    assert refusal("GET", http(path=path)).reason is Reason.BAD_PATH


@pytest.mark.parametrize(
    "path",
    ["/pkg.Service", "/pkg.Service/Method/x", "pkg.Service/Method", "/pkg..Service/M", "/a.B/C?x", "/a.B/%43", "/"],
)
def test_a_grpc_path_is_a_service_and_a_method(path: str) -> None:
    assert refusal("grpc", {"grpc": {"path": path}}).reason is Reason.BAD_PATH


def test_a_grpc_call_fills_in_service_and_method_and_refuses_others() -> None:
    found = asked("grpc", {"grpc": {"path": "/shop.v1.Orders/Get"}}).context["grpc"]
    assert (found["service"], found["method"]) == ("shop.v1.Orders", "Get")
    wrong = refusal("grpc", {"grpc": {"path": "/shop.v1.Orders/Get", "method": "Delete"}})
    assert wrong.reason is Reason.BAD_CONTEXT


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_has_one_spelling(address: str, seen: str) -> None:
    """A socket for both families shows an IPv4 caller as ::ffff:…, which no isInRange on IPv4 would match."""
    for verified in (True, False):
        found = read("GET", http(), Peer(verified=verified, ip=address))
        assert isinstance(found, Asked)
        assert found.context["peer"] == {"verified": verified, "ip": {"__extn": {"fn": "ip", "arg": seen}}}


def test_the_memory_of_addresses_is_bounded() -> None:
    reader = CallReader(VOCABULARY)
    for n in range(3000):
        found = reader.read(Call(ORDERS, "GET", INVENTORY, http(), Peer(verified=True, ip=f"10.0.{n >> 8}.{n & 255}")))
        assert isinstance(found, Asked)
    assert len(reader._peers) <= 1024


def test_an_address_that_is_none_is_bad_context() -> None:
    found = read("GET", http(), Peer(verified=True, ip="unix"))
    assert isinstance(found, Unreadable)
    assert found.reason is Reason.BAD_CONTEXT


def test_what_the_constructors_make_reads_and_fits_the_schema() -> None:
    """Each door's form, complete, is what the schema expects: asked with the schema, Cedar decides."""
    peer = Peer(verified=True, ip="192.0.2.7")
    message = HttpMessage("PUT", "/a", "h", 80, "q=1", {"x-tenant": ["a", "b"]})
    full = http_call(ORDERS, INVENTORY, message, peer)
    jwt = {"iss": "i", "sub": "s", "aud": ["a"], "groups": ["g"]}
    calls = [
        full,
        replace(full, context={**full.context, "jwt": jwt}),
        get(),
        grpc_call(ORDERS, INVENTORY, "/a.B/C", peer, {"x-role": ["r"]}),
        connect_call(ORDERS, INVENTORY, 5432, peer, "db.demo.test"),
    ]
    import cedarpy
    import msgspec

    schema = cedar.schema(VOCABULARY.schema_text())
    for call in calls:
        found = CallReader(VOCABULARY).read(call)
        assert isinstance(found, Asked), found
        assert found.dropped == ()
        request = {
            "principal": {"type": "Livery::Workload", "id": ORDERS},
            "action": {"type": "Livery::Action", "id": found.action},
            "resource": {"type": "Livery::Service", "id": INVENTORY},
            "context": msgspec.json.encode(found.context).decode(),
        }
        result = cedarpy.is_authorized(request, "permit(principal, action, resource);", "[]", schema)
        assert result.decision is cedarpy.Decision.Allow, result.diagnostics.errors
