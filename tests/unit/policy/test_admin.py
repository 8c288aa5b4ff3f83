"""Administration is for root and the server's own user, on the unix socket; health is one word for anybody."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from livery.runtime.metrics import Metrics
from livery_policy.bundles.keeper import PolicyDirectory, PolicyKeeper
from livery_policy.decisions.log import DecisionLog
from livery_policy.decisions.point import DecisionPoint
from livery_policy.doors.admin import AdminParts, admin_app
from livery_policy.doors.admission import Admission
from tests.asgi import ANONYMOUS, Asker, process, workload
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock
from tests.pki import NOW, TestCa
from tests.policies import INVENTORY, ORDERS, READ_ITEMS, VOCABULARY, get

CA = TestCa("demo.test")
OWNER, PEP, NOBODY = process(os.geteuid()), process(4242), process(65534)


class Server:
    """An administration over a directory of policies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.audit = RecordingAudit()
        clock, metrics = FakeClock(NOW), Metrics()
        self.point = DecisionPoint(clock, DecisionLog(None), metrics)
        self.keeper = PolicyKeeper(PolicyDirectory(directory, VOCABULARY), self.point, clock, metrics)
        admission = Admission([4242], [])
        self.app = admin_app(AdminParts(self.point, self.keeper, admission, clock, metrics, self.audit))

    def as_(self, peer: object = OWNER) -> Asker:
        return Asker(self.app, peer)  # type: ignore[arg-type]  # tests pass every kind of peer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    (tmp_path / "demo.cedar").write_text(READ_ITEMS)
    made = Server(tmp_path)
    await made.keeper.load()
    yield made


CLOSED = [
    ("GET", "/admin/version"),
    ("GET", "/admin/policies"),
    ("POST", "/admin/reload"),
    ("GET", "/admin/decisions/d-1"),
    ("POST", "/admin/can"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/no/such/path"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_everything_but_health_and_metrics_is_for_administrators(server: Server, method: str, path: str) -> None:
    for peer, status in (
        (ANONYMOUS, 401),
        (None, 401),
        (PEP, 403),
        (NOBODY, 403),
        (workload(CA, "/pep"), 403),
    ):
        reply = await server.as_(peer)(method, path, b"{")
        assert (reply.status, "www-authenticate" in reply.headers) == (status, status == 401)
        assert set(reply.json) == {"code", "what", "why", "fix"}
    assert server.audit.events == []


async def test_root_and_the_servers_own_user_are_administrators(server: Server) -> None:
    for uid in (0, os.geteuid()):
        assert (await server.as_(process(uid))("GET", "/admin/version")).json == server.point.version.as_dict()  # type: ignore[union-attr]


async def test_health_is_one_word_for_anybody(server: Server, tmp_path: Path) -> None:
    reply = await server.as_(ANONYMOUS)("GET", "/health")
    assert (reply.status, reply.json) == (200, {"status": "ok"})
    (tmp_path / "demo.cedar").write_text("permit(")
    assert (await server.as_()("POST", "/admin/reload")).status == 400
    assert (await server.as_(ANONYMOUS)("GET", "/health")).json == {"status": "degraded"}


async def test_without_policies_it_is_unavailable(tmp_path: Path) -> None:
    reply = await Server(tmp_path).as_()("GET", "/health")
    assert (reply.status, reply.json) == (503, {"status": "unavailable"})


async def test_metrics_are_for_who_may_ask(server: Server) -> None:
    for peer, status in ((OWNER, 200), (PEP, 200), (NOBODY, 403), (ANONYMOUS, 401), (workload(CA, "/pep"), 403)):
        assert (await server.as_(peer)("GET", "/metrics")).status == status
    assert b"livery_policies 1.0" in (await server.as_()("GET", "/metrics")).body


async def test_a_reload_puts_new_policies_in_force_and_is_audited(server: Server, tmp_path: Path) -> None:
    before = server.point.version
    (tmp_path / "more.cedar").write_text('@id("all") permit(principal, action, resource);')
    reply = await server.as_()("POST", "/admin/reload")
    assert (reply.status, reply.json["policies"]) == (200, 2)
    assert server.point.version != before
    assert server.audit.events[0]["event"] == "policies.reload"


async def test_a_reload_of_invalid_policies_says_where_and_keeps_the_last(server: Server, tmp_path: Path) -> None:
    before = server.point.version
    (tmp_path / "bad.cedar").write_text("// x\npermit(principal, action, resource);")
    reply = await server.as_()("POST", "/admin/reload")
    assert reply.status == 400
    assert (reply.json["findings"][0]["file"], reply.json["findings"][0]["line"]) == ("bad.cedar", 2)
    assert server.point.version == before
    status = (await server.as_()("GET", "/admin/policies")).json
    assert status["findings"][0]["code"] == "missing-id"
    assert status["in_force"][0]["id"] == "demo/orders-may-read"


async def test_a_decision_is_explained_in_words_and_data(server: Server) -> None:
    decision = server.point.decide(get("/orders"), "pep")
    reply = await server.as_()("GET", f"/admin/decisions/{decision.id}")
    assert reply.json["nearest"][0]["failed"] == ['context.http.path like "/items/*"']
    assert reply.json["explanation"][:2] == [
        f"denied: {ORDERS} → http:GET /orders → {INVENTORY}",
        "because no policy permits it",
    ]
    assert "demo.cedar:2" in reply.json["explanation"][2]


async def test_an_unknown_decision_is_404(server: Server) -> None:
    assert (await server.as_()("GET", "/admin/decisions/d-0")).status == 404


async def test_may_this_call_be_made(server: Server) -> None:
    asked = {"principal": ORDERS, "action": "GET", "resource": INVENTORY, "context": {"http": {"path": "/items/1"}}}
    assert (await server.as_().post("/admin/can", asked)).json["outcome"] == "allow"
    denied = (await server.as_().post("/admin/can", asked | {"context": {}})).json
    assert (denied["outcome"], denied["assumed"]) == ("deny", {"http.path": "/"})
    assert denied["id"]


@pytest.mark.parametrize("body", [{}, {"principal": 1}, [], {"principal": "a", "action": "b", "resource": "c", "x": 1}])
async def test_a_form_that_is_not_understood_is_400_and_names_the_place(server: Server, body: object) -> None:
    reply = await server.as_().post("/admin/can", body)
    assert (reply.status, reply.json["code"]) == (400, "bad_request")


async def test_the_page_of_routes_loads_nothing_from_elsewhere(server: Server) -> None:
    reply = await server.as_()("GET", "/docs")
    assert reply.headers["content-security-policy"] == "default-src 'none'"
    page = reply.body.decode()
    assert "/admin/reload" in page
    for word in ("src=", "href=", "http://", "https://", "<script"):
        assert word not in page
    assert (await server.as_()("GET", "/openapi.json")).json["openapi"]
