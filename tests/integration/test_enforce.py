"""An application behind the middleware, its server, the decision server and a real TLS client, end to end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from livery.identity import SpiffeId
from livery.runtime.clock import SystemClock
from livery.runtime.http import HttpServer, TcpListen
from livery.runtime.metrics import Metrics
from livery.runtime.transport.tls_contexts import client_context
from livery.workload.http_client import client
from livery_policy.enforce.asgi import AuthorizationMiddleware
from livery_policy.enforce.decider import RemoteDecider
from tests.fakes.audit import RecordingAudit
from tests.fakes.door_identity import ChangingIdentity
from tests.integration.test_authzen import running
from tests.pki import TestCa
from tests.policies import INVENTORY

SERVICE = SpiffeId.parse(INVENTORY)


class Stock:
    """The application: counts what reached it."""

    def __init__(self) -> None:
        self.reached = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.reached += 1
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"apple"})


@dataclass
class Mesh:
    """inventory, and who guards it."""

    ca: TestCa
    stock: Stock
    url: str

    def caller(self, path: str, ttl: timedelta = timedelta(hours=1)) -> ChangingIdentity:
        now = TestCa.issue(self.ca, path, not_after=datetime.now(UTC) + ttl)
        return ChangingIdentity(now, ChangingIdentity.of(self.ca).bundles())


@asynccontextmanager
async def mesh(tmp_path: Path, decider: Any = None) -> AsyncIterator[Mesh]:
    """inventory behind the middleware; decisions by a running policy server unless given."""
    stock = Stock()
    async with running(tmp_path, listen_port=None) as policy, RemoteDecider(f"unix:{policy.socket}") as remote:
        identity = ChangingIdentity.of(policy.ca, "/inventory")
        app = AuthorizationMiddleware(stock, decider or remote, SERVICE)
        listen = TcpListen("127.0.0.1", 0, identity)
        async with HttpServer(app, listen, clock=SystemClock(), audit=RecordingAudit(), metrics=Metrics()) as server:
            yield Mesh(policy.ca, stock, f"https://{server.address}")


async def test_a_call_is_allowed_and_another_denied_with_its_reason(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made, client(made.caller("/orders"), SERVICE) as orders:
        allowed = await orders.get(f"{made.url}/items/apple?x=1")
        assert (allowed.status_code, allowed.text) == (200, "apple")
        for method, path, reason in (
            ("DELETE", "/items/apple", "not_permitted"),
            ("GET", "/orders/1", "not_permitted"),
            ("GET", "/items/a;b", "bad_path"),
        ):
            denied = await orders.request(method, f"{made.url}{path}")
            assert (denied.status_code, denied.json()["reason"]) == (403, reason)
        assert made.stock.reached == 1
    async with mesh(tmp_path) as made, client(made.caller("/billing"), SERVICE) as billing:
        assert (await billing.get(f"{made.url}/items/apple")).status_code == 403
        assert made.stock.reached == 0


async def test_a_path_with_escaped_dots_never_reaches_the_application(tmp_path: Path) -> None:
    """Sent by hand: clients tidy such paths, attackers do not."""
    async with mesh(tmp_path) as made:
        caller = made.caller("/orders")
        trusted = caller.bundles()[made.ca.trust_domain]
        context: ssl.SSLContext = client_context(caller.svid(), trusted, caller.bundles(), alpn=("http/1.1",))
        context.check_hostname = False
        port = int(made.url.rpartition(":")[2])
        for path in ("/items/%2e%2e/admin", "/items/../admin", "/items//apple", "/%69tems/apple"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="")
            writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 403"), path
            assert b"bad_path" in answer
        assert made.stock.reached == 0


async def test_a_decision_server_that_goes_away_denies_as_undecided(tmp_path: Path) -> None:
    gone = RemoteDecider(f"unix:{tmp_path}/nobody.sock")
    async with mesh(tmp_path, gone) as made, client(made.caller("/orders"), SERVICE) as orders:
        answer = await orders.get(f"{made.url}/items/apple")
        assert (answer.status_code, answer.json()["reason"]) == (503, "no_decision")
        assert made.stock.reached == 0


async def test_a_connection_kept_past_its_certificates_end_is_401(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made:
        caller = made.caller("/orders", timedelta(seconds=3))
        trusted = caller.bundles()[made.ca.trust_domain]
        context = client_context(caller.svid(), trusted, caller.bundles(), alpn=("http/1.1",))
        context.check_hostname = False
        port = int(made.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="")
        writer.write(b"GET /items/apple HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readexactly(5)
        left = caller.svid().not_after - datetime.now(UTC)
        await SystemClock().sleep(left.total_seconds() + 0.1)
        writer.write(b"GET /items/apple HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 401")
        assert made.stock.reached == 1
