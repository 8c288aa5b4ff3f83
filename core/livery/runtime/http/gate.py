"""The gate between uvicorn and an application: who is calling, whether that still holds, and how much they may send.

Owns: `HttpPeer` (found by applications with `peer_of`), the standard `tls` extension beside it, the check of the
caller's identity on every request, the bound on bodies, request ids and the one log line of a request. Does not own:
what a peer may do, nor finding out who it is (`connection`).

Invariants: the application sees no request of a peer whose certificate has ended or whose authority was withdrawn; what
it finds in `scope["extensions"]["livery.peer"]` was put there by us, whatever a client sends.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from cryptography.hazmat.primitives.serialization import Encoding
from structlog.contextvars import bound_contextvars

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, VerifiedX509Svid
from livery.runtime.caller import CallerExpired, PeerProcess
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery.runtime.problems import http_status
from livery.runtime.transport.peer import turning_point

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

EXTENSION: Final = "livery.peer"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

log = get_logger("livery.http")


class NoPeer(LiveryError):
    """The request did not come through a server of ours, so nobody vouches for its caller."""

    code: ClassVar[str] = "no_peer"
    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED


class BodyTooLong(LiveryError):
    """The request's body is longer than this server reads."""

    code: ClassVar[str] = "body_too_long"
    kind: ClassVar[Kind] = Kind.INVALID


class ServerStops(LiveryError):
    """The server is being stopped and does not wait for this request any longer."""

    code: ClassVar[str] = "server_stops"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class HttpPeer:
    """Who is at the other end of an HTTP connection.

    Over TLS `identity` is set if a client certificate was shown; on a unix socket `process` is. `address` is
    "127.0.0.1:3344", "[::1]:3344" or "unix".
    """

    identity: VerifiedX509Svid | None
    process: PeerProcess | None
    address: str

    @property
    def expires_at(self) -> datetime | None:
        """When the identity ends; None where there is nothing that ends."""
        return self.identity.not_after if self.identity is not None else None

    def describe(self) -> str:
        """One word for logs: the SPIFFE ID, `uid:1000/pid:77`, or `anonymous`."""
        if self.identity is not None:
            return str(self.identity.id)
        if self.process is not None:
            return f"uid:{self.process.uid}/pid:{self.process.pid}"
        return "anonymous"


def peer_of(scope: Mapping[str, Any]) -> HttpPeer:
    """The peer of a request. Raises `NoPeer` if no server of ours put one there: never read that as "anonymous"."""
    found = (scope.get("extensions") or {}).get(EXTENSION)
    if not isinstance(found, HttpPeer):
        raise NoPeer("nothing is known about the caller", fix="serve this application with livery.runtime.http.server")
    return found


def tls_extension(tls: ssl.SSLObject, server_pem: str, peer: HttpPeer) -> dict[str, Any]:
    """The `tls` extension of ASGI 3.0: certificates as PEM, the cipher suite as its IANA number."""
    identity = peer.identity
    chain = identity.chain if identity is not None else ()
    cipher = tls.cipher()
    numbers = {each["name"]: each["id"] & 0xFFFF for each in tls.context.get_ciphers()}
    return {
        "server_cert": server_pem,
        "client_cert_chain": [each.public_bytes(Encoding.PEM).decode("ascii") for each in chain],
        "client_cert_name": chain[0].subject.rfc4514_string() if chain else None,
        "client_cert_error": None,
        "tls_version": {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}.get(tls.version() or ""),
        "cipher_suite": numbers.get(cipher[0]) if cipher else None,
    }


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What every gate of a server has in common.

    `bundles` is what chains are held against, a new object after a change; `recheck` raises if a peer's chain does not
    verify against it.
    """

    clock: Clock
    body_bytes: int
    log_requests: bool
    bundles: Callable[[], BundleMap | None]
    recheck: Callable[[HttpPeer], None]


class Gate:
    """The ASGI application of one connection: the real one, with the connection's peer in front of it."""

    __slots__ = (
        "_app",
        "_extensions",
        "_in_flight",
        "_is_released",
        "_peer",
        "_settings",
        "_turns_at",
        "_verified_with",
    )

    def __init__(self, app: Application, peer: HttpPeer, settings: GateSettings, tls: dict[str, Any] | None) -> None:
        self._app = app
        self._peer = peer
        self._settings = settings
        self._extensions = {EXTENSION: peer} if tls is None else {EXTENSION: peer, "tls": tls}
        self._turns_at = turning_point(peer.identity, settings.clock.now()) if peer.identity is not None else None
        self._verified_with = settings.bundles()
        self._in_flight = 0
        self._is_released = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it before the application sees it."""
        must_close = self._turns_at is not None and self._settings.clock.now() >= self._turns_at
        exchange = _Exchange(scope, (receive, send), self._settings, must_close=must_close)
        scope["extensions"] = {**(scope.get("extensions") or {}), **self._extensions}
        self._in_flight += 1
        with bound_contextvars(request_id=exchange.request_id):
            try:
                await self._serve(scope, exchange)
            finally:
                self._in_flight -= 1
                self._let_go()
                if self._settings.log_requests:
                    exchange.tell(scope, self._peer)

    async def _serve(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            self.require_current()
            exchange.require_short_body()
        except LiveryError as error:
            await exchange.refuse(error)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # The server's grace is over, and this task ends here.
            await exchange.refuse(ServerStops("the server stops", fix="try again, elsewhere or later"))
        except Exception:
            # Once we answered 413 ourselves, what the application makes of its cut body is of no interest.
            if not exchange.is_cut:
                raise

    def require_current(self) -> None:
        """Raise if the peer's certificate has ended, or no authority of today's bundles vouches for it."""
        now, ends = self._settings.clock.now(), self._peer.expires_at
        if ends is not None and now > ends:
            why = f"it was valid until {ends.isoformat()}"
            raise CallerExpired("the certificate of this connection has expired", why=why, fix="connect again")
        bundles = self._settings.bundles()
        if bundles is not self._verified_with:
            self._settings.recheck(self._peer)
            self._verified_with = bundles

    def release(self) -> None:
        """The connection is gone: close the peer's pidfd as soon as no request of it is running."""
        self._is_released = True
        self._let_go()

    def _let_go(self) -> None:
        # Until then the number must not come to mean another file.
        if self._is_released and not self._in_flight and self._peer.process is not None:
            os.close(self._peer.process.pidfd)


class _Exchange:
    """One request and its response."""

    __slots__ = (
        "_announced",
        "_began",
        "_close",
        "_receive",
        "_seen",
        "_send",
        "_settings",
        "is_cut",
        "request_id",
        "status",
    )

    def __init__(
        self, scope: Scope, channel: tuple[Receive, Send], settings: GateSettings, *, must_close: bool
    ) -> None:
        self._receive, self._send = channel
        self._settings = settings
        self._close = must_close
        self._seen = 0
        self._announced = _announced_length(scope)
        self._began = settings.clock.monotonic()
        self.is_cut = False
        self.status = 0
        self.request_id = _request_id(scope)

    def require_short_body(self) -> None:
        """Raise `BodyTooLong` for a body that announces itself as too long."""
        if self._announced > self._settings.body_bytes:
            raise self._too_long()

    async def receive(self) -> Message:
        """The next part of the body, as long as the whole stays within bounds."""
        if self.is_cut:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen <= self._settings.body_bytes:
            return message
        await self.refuse(self._too_long())
        self.is_cut = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a part of the response on, with the headers that are ours to set."""
        if self.is_cut:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._headers(message.get("headers", ()))}
        await self._send(message)

    def _headers(self, given: Any) -> list[tuple[bytes, bytes]]:
        headers = list(given)
        names = {bytes(name).lower() for name, _ in headers}
        if b"x-request-id" not in names:
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
        if self._close and b"connection" not in names:
            headers.append((b"connection", b"close"))
        return headers

    async def refuse(self, error: LiveryError) -> None:
        """Answer with a problem document (RFC 9457), unless an answer has begun, and close the connection."""
        if self.status:
            return
        self._close = True
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if isinstance(error, BodyTooLong) else http_status(error.kind)
        document = {"title": error.what, "status": status.value, "code": error.code, "request_id": self.request_id}
        body = json.dumps(document).encode("utf-8")
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode("ascii"))]
        if status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"X509-SVID"))  # RFC 9110 15.5.2: a challenge is due
        await self.send({"type": "http.response.start", "status": status.value, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def tell(self, scope: Scope, peer: HttpPeer) -> None:
        """Write the request's one line. The query is left out: it may hold anything."""
        log.info(
            "request",
            method=scope["method"],
            path=cast("bytes", scope["raw_path"]).decode("latin-1"),
            status=self.status,
            milliseconds=round((self._settings.clock.monotonic() - self._began) * 1000, 3),
            caller=peer.describe(),
            address=peer.address,
        )

    def _too_long(self) -> BodyTooLong:
        limit = self._settings.body_bytes
        return BodyTooLong("the request is too long", why=f"this server reads at most {limit} bytes")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode("ascii")
    return secrets.token_hex(8)


def _announced_length(scope: Scope) -> int:
    # The parser has already refused lengths that are not numbers or that contradict each other.
    return max((int(value) for name, value in scope["headers"] if name == b"content-length"), default=0)
