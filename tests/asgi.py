"""Asking an ASGI application without a network, as a peer of one's choice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from livery.identity import BundleMap, VerifiedX509Svid, verify_x509
from livery.runtime.caller import PeerProcess
from livery.runtime.http import HttpPeer
from livery.runtime.http.gate import EXTENSION, Application
from tests.pki import NOW, TestCa

ANONYMOUS = HttpPeer(None, None, "192.0.2.9:4711")


def process(uid: int) -> HttpPeer:
    """A process on the unix socket."""
    return HttpPeer(None, PeerProcess(pid=4711, uid=uid, gid=uid, pidfd=-1, start_time=1), "unix")


def workload(ca: TestCa, path: str) -> HttpPeer:
    """A workload over TLS."""
    return HttpPeer(verified(ca, path), None, "192.0.2.9:4711")


def verified(ca: TestCa, path: str) -> VerifiedX509Svid:
    """A verified identity."""
    return verify_x509(ca.issue(path).chain, BundleMap.of(ca.bundle()), NOW)


@dataclass(frozen=True)
class Reply:
    """What the application answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass(frozen=True)
class Asker:
    """Asks one application as one peer; a `peer` of None is a server that is not ours."""

    app: Application
    peer: HttpPeer | None

    async def __call__(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: Iterable[tuple[str, str]] = (),
        **scope: Any,
    ) -> Reply:
        """One request; a body in parts is sent in parts, and one that is cut ends in a disconnect."""
        parts = [body] if isinstance(body, bytes) else list(body)
        waiting = [{"type": "http.request", "body": p, "more_body": n < len(parts) - 1} for n, p in enumerate(parts)]
        sent: list[Any] = []

        async def receive() -> Any:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(self._scope(method, path, headers, scope), receive, send)
        start, *rest = sent
        found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], found, b"".join(m.get("body", b"") for m in rest))

    async def post(self, path: str, document: object, headers: Iterable[tuple[str, str]] = ()) -> Reply:
        """A JSON document."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return await self("POST", path, body, [("content-type", "application/json"), *headers])

    def _scope(self, method: str, path: str, headers: Iterable[tuple[str, str]], more: dict[str, Any]) -> Any:
        raw, _, query = path.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": raw,
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            "client": ("192.0.2.9", 4711),
            "server": ("192.0.2.1", 8443),
            "extensions": {EXTENSION: self.peer} if self.peer is not None else {},
            **more,
        }
