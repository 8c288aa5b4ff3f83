"""The middleware: nothing reaches the application that was not decided, and nobody decides but the decider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from livery.identity import SpiffeId
from livery.runtime.metrics import Metrics
from livery_policy.decisions.log import DecisionLog
from livery_policy.decisions.point import DecisionPoint
from livery_policy.enforce.asgi import AuthorizationMiddleware
from livery_policy.enforce.decider import LocalDecider, RemoteDecider
from livery_policy.model.calls import Call
from livery_policy.model.decision import Decision, Reason
from tests.asgi import ANONYMOUS, Asker, process, workload
from tests.fakes.clock import FakeClock
from tests.fakes.decider import FixedDecider
from tests.pki import HOUR, NOW, TestCa
from tests.policies import INVENTORY, ORDERS, PERMIT_GET, READ_ITEMS, engine, get

CA = TestCa("demo.test")
SERVICE = SpiffeId.parse(INVENTORY)


class Application:
    """The guarded application: says hello, and remembers whom it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope.get("path", scope["type"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})


class Guarded:
    """An application behind the middleware, with a decider over these policies."""

    def __init__(self, *policies: str, decider: Any = None, headers: tuple[str, ...] = ()) -> None:
        self.application, self.clock = Application(), FakeClock(NOW)
        point = DecisionPoint(self.clock, DecisionLog(None), Metrics())
        point.use(engine(*policies))
        self.told: list[tuple[Call, Decision]] = []
        self.app = AuthorizationMiddleware(
            self.application,
            decider or LocalDecider(point),
            SERVICE,
            headers=headers,
            clock=self.clock,
            on_decision=lambda call, decision: self.told.append((call, decision)),
        )

    def as_(self, peer: Any) -> Asker:
        return Asker(self.app, peer)

    @property
    def orders(self) -> Asker:
        return self.as_(workload(CA, "/orders"))


async def test_a_permitted_call_reaches_the_application() -> None:
    guarded = Guarded(READ_ITEMS)
    reply = await guarded.orders("GET", "/items/1")
    assert (reply.status, reply.body, guarded.application.seen) == (200, b"hello", ["/items/1"])


async def test_a_denied_call_is_403_with_the_class_and_the_decisions_id_and_no_more() -> None:
    guarded = Guarded(READ_ITEMS)
    reply = await guarded.orders("DELETE", "/items/1")
    decision = guarded.told[0][1]
    assert reply.status == 403
    assert reply.json == {"error": "denied", "reason": "not_permitted", "id": decision.id}
    assert reply.headers["livery-decision"] == decision.id
    assert guarded.application.seen == []


@pytest.mark.parametrize("peer", [None, ANONYMOUS, process(0)], ids=["no server of ours", "anonymous", "local process"])
async def test_without_an_identity_it_is_401(peer: Any) -> None:
    guarded = Guarded('@id("all") permit(principal, action, resource);')
    reply = await guarded.as_(peer)("GET", "/items/1")
    assert (reply.status, reply.json["reason"]) == (401, "no_identity")
    assert "www-authenticate" in reply.headers
    assert guarded.application.seen == []


async def test_an_identity_that_has_ended_is_401_on_the_connection_it_opened() -> None:
    guarded = Guarded(READ_ITEMS)
    asker = guarded.orders
    guarded.clock.advance(HOUR - NOW.resolution)
    assert (await asker("GET", "/items/1")).status == 200
    guarded.clock.advance(NOW.resolution)
    reply = await asker("GET", "/items/1")
    assert (reply.status, reply.json["reason"]) == (401, "identity_ended")


async def test_nothing_a_client_sends_makes_it_somebody_else() -> None:
    """Not headers, and not the tls extension, which names whoever the client's certificate says."""
    guarded = Guarded('@id("all") permit(principal, action, resource);')
    headers = [("x-forwarded-client-cert", f"URI={ORDERS}"), ("livery.peer", ORDERS), ("x-spiffe-id", ORDERS)]
    extensions = {"tls": {"client_cert_chain": ["-----BEGIN…"], "client_cert_name": "orders"}, "livery.peer": ORDERS}
    assert (await guarded.as_(None)("GET", "/", b"", headers, extensions=extensions)).status == 401


async def test_the_caller_is_the_verified_identity() -> None:
    guarded = Guarded(READ_ITEMS)
    await guarded.as_(workload(CA, "/billing"))("GET", "/items/1")
    assert guarded.told[0][0].principal == "spiffe://demo.test/billing"
    assert guarded.told[0][1].reason is Reason.NOT_PERMITTED


@pytest.mark.parametrize("path", ["/items/%2e%2e/admin", "/items//1", "/items/..;/x", "/items/1%00"])
async def test_the_raw_path_is_decided_on_and_not_what_the_server_made_of_it(path: str) -> None:
    """The application would see `/admin`; the policy must not see `/items/…`."""
    guarded = Guarded(READ_ITEMS)
    reply = await guarded.orders("GET", "/items/1", raw_path=path.encode())
    assert (reply.status, reply.json["reason"]) == (403, "bad_path")


async def test_a_server_that_gives_no_raw_path_is_not_decided_on() -> None:
    reply = await Guarded(READ_ITEMS).orders("GET", "/items/1", raw_path=None)
    assert (reply.status, reply.json["reason"]) == (403, "bad_path")


@pytest.mark.parametrize("reason", [r for r in Reason if r is not Reason.PERMITTED])
async def test_every_refusal_keeps_the_application_unreached(reason: Reason) -> None:
    guarded = Guarded(decider=FixedDecider(Decision("d-1", reason)))
    reply = await guarded.orders("GET", "/")
    assert reply.status == (503 if reason is Reason.NO_DECISION else 403)
    assert guarded.application.seen == []


async def test_only_the_named_headers_leave_the_process_each_line_apart() -> None:
    guarded = Guarded(READ_ITEMS, headers=("X-Tenant",))
    sent = [("x-tenant", "a"), ("x-tenant", " b, c "), ("authorization", "Bearer hidden"), ("cookie", "hidden")]
    await guarded.orders("GET", "/items/1", b"", sent)
    context: Any = guarded.told[0][0].context
    assert context["http"]["headers"] == {"x-tenant": ["a", "b, c"]}


async def test_a_headers_value_is_the_one_the_application_sees() -> None:
    """Python would strip more than HTTP does, and the policy would see `acme` where the application does not."""
    guarded = Guarded(READ_ITEMS, headers=("x-tenant",))
    await guarded.orders("GET", "/items/1", b"", [("x-tenant", "\xa0acme\x85"), ("x-tenant", "\t acme ")])
    context: Any = guarded.told[0][0].context
    assert context["http"]["headers"] == {"x-tenant": ["\xa0acme\x85", "acme"]}


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        (["inventory.demo.test:8443"], "inventory.demo.test"),
        (["inventory"], "inventory"),
        (["[2001:db8::1]:443"], "[2001:db8::1]"),
        (["[2001:db8::1]"], "[2001:db8::1]"),
        ([], ""),
    ],
)
async def test_the_host_is_the_header_without_its_port(hosts: list[str], host: str) -> None:
    guarded = Guarded(READ_ITEMS)
    assert (await guarded.orders("GET", "/items/1?q=1", b"", [("host", h) for h in hosts])).status == 200
    context: Any = guarded.told[0][0].context
    assert (context["http"]["host"], context["http"]["port"], context["http"]["query"]) == (host, 8443, "q=1")


@pytest.mark.parametrize(
    "hosts",
    [
        ("a.test", "b.test"),
        ("a.test:\xb2",),
        ("a.test:",),
        ("a.test:80:80",),
        ("::1",),
        ("2001:db8::1",),
        ("u@a.test",),
    ],
)
async def test_two_hosts_are_no_host_and_neither_is_what_only_looks_like_one(hosts: tuple[str, ...]) -> None:
    """`²` is a digit to Python, and no port to anybody else."""
    reply = await Guarded(READ_ITEMS).orders("GET", "/items/1", b"", [("host", host) for host in hosts])
    assert (reply.status, reply.json["reason"]) == (403, "bad_context")


async def test_the_callers_address_is_there_for_policies_in_this_process() -> None:
    text = f'@id("a") {PERMIT_GET} when {{ context.peer has ip && context.peer.ip == ip("192.0.2.9") }};'
    assert (await Guarded(text).orders("GET", "/")).status == 200


async def test_a_websocket_is_refused_and_a_lifespan_passes() -> None:
    guarded = Guarded('@id("all") permit(principal, action, resource);')
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await guarded.app({"type": "websocket", "path": "/"}, receive, send)
    assert (sent, guarded.application.seen) == ([{"type": "websocket.close", "code": 1008}], [])
    await guarded.app({"type": "lifespan"}, receive, send)
    assert guarded.application.seen == ["lifespan"]


# The remote decider: whatever comes back, only a true decision allows.


def remote(answer: Callable[[httpx2.Request], Any], timeout: float = 1.0) -> RemoteDecider:
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return RemoteDecider("https://policy.test", client=client, timeout=timeout)


async def test_the_question_is_authzen_and_says_nothing_of_the_peer() -> None:
    asked: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        import json

        asked.append((str(request.url), json.loads(request.content)))
        return httpx2.Response(200, json={"decision": True, "context": {"id": "d-7", "reason": "permitted"}})

    decision = await remote(answer).decide(get())
    assert decision == Decision("d-7", Reason.PERMITTED)
    ((url, document),) = asked
    assert url == "https://policy.test/access/v1/evaluation"
    assert document["subject"] == {"type": "spiffe", "id": ORDERS}
    assert set(document["context"]) == {"http"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, content=b""),
        httpx2.Response(200, content=b"true"),
        httpx2.Response(200, json={}),
        httpx2.Response(200, json={"decision": "true"}),
        httpx2.Response(200, json={"decision": 1}),
        httpx2.Response(200, json={"decision": None}),
        httpx2.Response(200, json=[{"decision": True}]),
        httpx2.Response(200, content=b"[" * 100_000),
        httpx2.Response(200, content=b'{"decision":true}' + b" " * 70_000),
        httpx2.Response(204),
        httpx2.Response(302, headers={"location": "/"}, json={"decision": True}),
        *(httpx2.Response(status, json={"decision": True}) for status in (201, 400, 401, 403, 500, 503)),
    ],
    ids=lambda r: f"{r.status_code}-{r.content[:20]!r}",
)
async def test_what_is_no_decision_is_no_decision(answer: httpx2.Response) -> None:
    assert (await remote(lambda _: answer).decide(get())).reason is Reason.NO_DECISION


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"decision": True}, Reason.PERMITTED),
        ({"decision": True, "context": {"reason": "forbidden"}}, Reason.PERMITTED),
        ({"decision": False}, Reason.NOT_PERMITTED),
        ({"decision": False, "context": {"reason": "permitted"}}, Reason.NOT_PERMITTED),
        ({"decision": False, "context": {"reason": {"a": 1}}}, Reason.NOT_PERMITTED),
        ({"decision": False, "context": {"reason": "bad_path", "id": 7}}, Reason.BAD_PATH),
        ({"decision": False, "context": []}, Reason.NOT_PERMITTED),
        ({"decision": False, "context": {"reason": "no_decision"}}, Reason.NO_DECISION),
    ],
)
async def test_the_decision_decides_and_not_its_explanation(document: Any, reason: Reason) -> None:
    assert (await remote(lambda _: httpx2.Response(200, json=document)).decide(get())).reason is reason


@pytest.mark.parametrize("name", ["d-1\r\nx: y", "\u2028", "", 7, ["d"]])
async def test_an_id_that_is_none_is_left_out(name: object) -> None:
    document = {"decision": False, "context": {"id": name}}
    assert (await remote(lambda _: httpx2.Response(200, json=document)).decide(get())).id == ""


@pytest.mark.parametrize("error", [httpx2.ConnectError, httpx2.ReadTimeout, OSError, ValueError])
async def test_whatever_keeps_us_from_an_answer_is_no_decision(error: type[Exception]) -> None:
    def fail(_: httpx2.Request) -> httpx2.Response:
        raise error("not today")

    assert (await remote(fail).decide(get())).reason is Reason.NO_DECISION


async def test_an_answer_that_does_not_come_is_no_decision() -> None:
    async def never(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    decision = await remote(never, timeout=0.05).decide(get())
    assert (decision.reason, decision.detail) == (Reason.NO_DECISION, "no answer within 0.05 s")


async def test_a_kept_connection_that_was_closed_is_dialled_again_once() -> None:
    asked: list[int] = []

    def answer(_: httpx2.Request) -> httpx2.Response:
        asked.append(1)
        if len(asked) == 1:
            raise httpx2.RemoteProtocolError("closed")
        return httpx2.Response(200, json={"decision": True})

    assert (await remote(answer).decide(get())).allowed
    assert len(asked) == 2


async def test_a_question_that_took_too_long_is_not_asked_again() -> None:
    """The other end is slow enough as it is."""
    asked: list[int] = []

    def answer(_: httpx2.Request) -> httpx2.Response:
        asked.append(1)
        raise httpx2.ReadTimeout("slow")

    assert (await remote(answer).decide(get())).reason is Reason.NO_DECISION
    assert len(asked) == 1


async def test_a_call_that_json_cannot_carry_is_no_decision() -> None:
    call = Call(ORDERS, "GET", INVENTORY, {"http": {"path": "/\ud800"}})
    decision = await remote(lambda _: httpx2.Response(200, json={"decision": True})).decide(call)
    assert decision.reason is Reason.NO_DECISION


async def test_cancellation_is_not_swallowed() -> None:
    async def never(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(remote(never, timeout=60).decide(get()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nobody_at_the_socket_is_no_decision(tmp_path: Any) -> None:
    async with RemoteDecider(f"unix:{tmp_path}/none.sock") as decider:
        assert (await decider.decide(get())).reason is Reason.NO_DECISION


async def test_a_proxy_of_the_environment_never_sees_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers decides; the socket is what was named, and nothing else is asked."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}}")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\nconnection: close\r\n\r\n{"decision":true}')
        writer.close()

    async with (
        await asyncio.start_unix_server(answer, tmp_path / "s"),
        RemoteDecider(f"unix:{tmp_path}/s", timeout=20) as decider,
    ):
        assert (await decider.decide(get())).allowed


def test_an_address_that_is_no_socket_needs_a_client() -> None:
    with pytest.raises(ValueError, match="unix:/path"):
        RemoteDecider("http://policy.test")
