"""What the tests of the HTTP server share: an application that says what it saw, and raw clients."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from livery.identity import X509Svid
from livery.runtime.http import HttpOptions, HttpServer, TcpListen, UnixListen, peer_of
from livery.runtime.metrics import Metrics
from livery.runtime.transport.listen import Listen
from livery.runtime.transport.tls_contexts import client_context
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock
from tests.fakes.door_identity import ChangingIdentity
from tests.pki import TestCa


class Echo:
    """Says who called and what came; `/wait` answers when `go` is set, `/bytes` sends what `big` holds."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.bodies: list[bytes] = []
        self.big = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        self.scopes.append(scope)
        self.entered.set()
        if scope["path"] == "/wait":
            await self.go.wait()
        if scope["path"] == "/fail":
            raise RuntimeError("a bug of the application")
        body = b"" if scope["path"] == "/unread" else await _read(receive)
        self.bodies.append(body)
        peer = peer_of(scope)
        answer = self.big or json.dumps({"caller": peer.describe(), "length": len(body)}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client went away")
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


class World:
    """One trust domain, one server, and everything a test wants to look at."""

    def __init__(self) -> None:
        self.ca = TestCa("example.org", now=datetime.now(UTC))
        self.identity = ChangingIdentity.of(self.ca)
        self.clock = FakeClock(datetime.now(UTC))
        self.audit = RecordingAudit()
        self.app = Echo()
        self.metrics = Metrics()

    def tcp(self, options: HttpOptions | None = None, **listen: Any) -> HttpServer:
        return self.serve(TcpListen("127.0.0.1", 0, self.identity, **listen), options)

    def unix(self, path: Path, options: HttpOptions | None = None, **listen: Any) -> HttpServer:
        return self.serve(UnixListen(path, **listen), options)

    def serve(self, listen: Listen, options: HttpOptions | None = None, app: Any = None) -> HttpServer:
        app = app or self.app
        return HttpServer(app, listen, clock=self.clock, audit=self.audit, metrics=self.metrics, options=options)

    def context(self, svid: X509Svid | None) -> ssl.SSLContext:
        bundle = self.ca.bundle()
        return client_context(svid, bundle, self.identity.trusted, alpn=("http/1.1",))

    def refusals(self) -> list[dict[str, object]]:
        return [event for event in self.audit.events if event["outcome"] == "refused"]


class Client:
    """A raw connection: it sends what it is told, and reads responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def get(self, path: str = "/", headers: Sequence[str] = ()) -> Response:
        head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "host: x", *headers))
        await self.send(f"{head}\r\n".encode())
        return await self.response()

    async def post(self, body: bytes, path: str = "/") -> Response:
        await self.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        return await self.response()

    async def response(self) -> Response:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Response(int(head[0].split()[1]), headers, body)

    async def ended(self) -> bytes:
        """What still came until the server closed."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    def close(self) -> None:
        self.writer.close()


class Response:
    """A response with a length."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def connected(server: HttpServer, context: ssl.SSLContext | None = None) -> Any:
    """A client of this server, closed in the end."""
    if server.address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(server.address.removeprefix("unix:"))
    else:
        host, port = server.address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=context, server_hostname="x" if context else None
        )
    client = Client(reader, writer)
    try:
        yield client
    finally:
        writer.transport.abort()


async def until(condition: Any) -> None:
    """Wait (at most 10 s) until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
