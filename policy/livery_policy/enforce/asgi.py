"""The ASGI middleware: every request to an application is decided before the application sees it.

Owns: turning a request into a call, and a decision into 401, 403, 503 or the application. Does not own: who the peer is
(`livery.runtime.http` verified it), `connection: close` (the same), or the decision (`decider`).

Invariants: the caller is what stands in `scope["extensions"]["livery.peer"]`, and nothing a client sends: no header,
and not the standard `tls` extension, which carries text that nobody verified against a bundle. No identity, or one that
has ended, is 401; a call that is denied is 403; one that nobody decided is 503. What is not HTTP is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from http import HTTPStatus

from livery.identity import SpiffeId, VerifiedX509Svid
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.http import HttpPeer, NoPeer, peer_of
from livery.runtime.http.gate import Application, Receive, Scope, Send
from livery.runtime.logging import get_logger
from livery_policy.enforce.decider import Decider
from livery_policy.model.calls import Call, HttpMessage, Peer, http_call
from livery_policy.model.decision import Decision, Reason

Headers = list[tuple[bytes, bytes]]
DECISION_HEADER = b"livery-decision"
_POLICY_VIOLATION = 1008  # RFC 6455 7.4.1

log = get_logger("livery.enforce")


class AuthorizationMiddleware:
    """Guards `app`, which is the service `service`.

    `headers` are the request headers that policies may read (lower case); no other header leaves this process.
    `on_decision` is told of every decision with its call, for logs and counters of the application.
    """

    def __init__(
        self,
        app: Application,
        decider: Decider,
        service: SpiffeId,
        *,
        headers: Collection[str] = (),
        clock: Clock | None = None,
        on_decision: Callable[[Call, Decision], None] | None = None,
    ) -> None:
        self._app = app
        self._decider = decider
        self._service = str(service)
        self._headers = {name.lower().encode("ascii"): name.lower() for name in headers}
        self._clock = clock or SystemClock()
        self._on_decision = on_decision

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._guard(scope, receive, send)
        else:
            # A WebSocket would outlive the decision that opened it.
            await send({"type": f"{scope['type']}.close", "code": _POLICY_VIOLATION})

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        """(1) Who; (2) still; (3) may they."""
        peer = _peer(scope)
        identity = peer.identity if peer is not None else None
        if peer is None or identity is None:  # 1
            await _refuse(send, HTTPStatus.UNAUTHORIZED, {"error": "unauthenticated", "reason": "no_identity"})
            return
        if self._clock.now() >= identity.not_after:  # 2
            await _refuse(send, HTTPStatus.UNAUTHORIZED, {"error": "unauthenticated", "reason": "identity_ended"})
            return
        decision = await self._decide(scope, peer, identity)  # 3
        if decision.allowed:
            await self._app(scope, receive, send)
            return
        undecided = decision.reason is Reason.NO_DECISION
        status = HTTPStatus.SERVICE_UNAVAILABLE if undecided else HTTPStatus.FORBIDDEN
        error = "undecided" if undecided else "denied"
        await _refuse(send, status, {"error": error, "reason": str(decision.reason), "id": decision.id})

    async def _decide(self, scope: Scope, peer: HttpPeer, identity: VerifiedX509Svid) -> Decision:
        call = http_call(str(identity.id), self._service, self._message(scope), Peer(verified=True, ip=_ip(peer)))
        decision = await self._decider.decide(call)
        if self._on_decision is not None:
            self._on_decision(call, decision)
        if not decision.allowed:
            log.info(
                "call denied",
                caller=call.principal,
                action=call.action,
                reason=str(decision.reason),
                decision=decision.id,
                detail=decision.detail,
            )
        return decision

    def _message(self, scope: Scope) -> HttpMessage:
        lines: dict[str, list[str]] = {}
        hosts = []
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value.decode("latin-1"))
            if (known := self._headers.get(name)) is not None:
                lines.setdefault(known, []).append(value.decode("latin-1").strip(" \t"))  # RFC 9110 5.5
        server = scope.get("server")
        query = scope.get("query_string", b"")
        return HttpMessage(
            method=scope["method"],
            path=_raw_path(scope),
            host=_host(hosts),
            port=server[1] if server and isinstance(server[1], int) else None,
            query=query.decode("latin-1") if query else None,
            headers=lines,
        )


def _peer(scope: Scope) -> HttpPeer | None:
    try:
        return peer_of(scope)
    except NoPeer:
        return None


def _raw_path(scope: Scope) -> str:
    """The path as it was sent. A server that only has it decoded cannot be decided on: the empty path is refused."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if isinstance(raw, bytes) else ""


def _host(hosts: list[str]) -> str:
    """The Host header without its port. Two of them, or an address without brackets, are no host, and are refused."""
    host = ",".join(hosts)
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _ip(peer: HttpPeer) -> str | None:
    """The bare address; None on a unix socket."""
    return peer.address.rpartition(":")[0].strip("[]") or None


async def _refuse(send: Send, status: HTTPStatus, said: dict[str, str]) -> None:
    body = json.dumps(said).encode()
    headers: Headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers.append((b"cache-control", b"no-store"))
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"X509-SVID"))
    if decision := said.get("id"):
        headers.append((DECISION_HEADER, decision.encode("latin-1", "replace")))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
