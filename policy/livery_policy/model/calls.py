"""From a call, as a door or an enforcement point has it, to what Cedar is asked.

Owns: `Call` (anyone's form, unchecked), `Asked` (checked), `read` between them, and the constructors for HTTP, gRPC and
TCP. Does not own: the IDs of the two parties (`model.entities` reads those), or policies.

Invariants: every path passes `normal_path`, whoever asked; the action and the method in the context never disagree;
`peer` and `now` are never taken from the context that was sent.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from livery_policy.model import context as ctx
from livery_policy.model.context import BadContext, Shape, shapes
from livery_policy.model.decision import Reason
from livery_policy.model.paths import NotNormal, normal_path
from livery_policy.model.vocabulary import Vocabulary

_MAX_PEERS = 1024
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
_GROUPS = frozenset({"call", "http", "http:read", "http:write"})
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}")  # RFC 9110 5.6.2
_GRPC_PATH = re.compile(r"/([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)/([A-Za-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the connection: whether the caller's identity was verified, and its address if known."""

    verified: bool
    ip: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """May `principal` do `action` on `resource`? Nothing of it has been checked."""

    principal: str
    action: str
    resource: str
    context: Mapping[str, object]
    peer: Peer = Peer(verified=False)
    dropped: tuple[str, ...] = ()  # names the door already left out


@dataclass(frozen=True, slots=True)
class Asked:
    """What Cedar is asked: an action of the schema and a context that fits it, without `now`."""

    action: str
    context: Mapping[str, object]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A call that cannot be asked: it is denied for this reason."""

    reason: Reason
    detail: str
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """What a policy may read of an HTTP request. `path` is raw and without the query; header names are lower case."""

    method: str
    path: str
    host: str = ""
    port: int | None = None
    query: str | None = None
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)


class CallReader:
    """Reads calls by one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._shapes = shapes(vocabulary)
        self._peers: dict[Peer, dict[str, object]] = {}  # reading an address costs more than all the rest

    def read(self, call: Call) -> Asked | Unreadable:
        """The call in Cedar's terms, or why it has none."""
        action, method = _action(call.action)
        if action is None:
            return Unreadable(Reason.BAD_ACTION, method or "", call.dropped)
        dropped = list(call.dropped)
        try:
            found = self._context(action, method, call.context, dropped)
            found["peer"] = self._peer(call.peer)
        except NotNormal as e:
            return Unreadable(Reason.BAD_PATH, str(e), tuple(dropped))
        except BadContext as e:
            return Unreadable(Reason.BAD_CONTEXT, str(e), tuple(dropped))
        return Asked(action, found, tuple(dropped))

    def _peer(self, peer: Peer) -> dict[str, object]:
        if (known := self._peers.get(peer)) is None:
            if len(self._peers) >= _MAX_PEERS:
                self._peers.clear()
            known = self._peers[peer] = _peer(peer)
        return known

    def _context(self, action: str, method: str | None, sent: object, dropped: list[str]) -> dict[str, object]:
        family = "http" if action.startswith("http:") else action
        found = ctx.read(_with_lower_headers(sent, family), self._shapes[family], dropped)
        if family == "http":
            found["http"] = _http(_record(found["http"]), action, method)
        elif family == "grpc":
            found["grpc"] = _grpc(_record(found["grpc"]))
        return found


def http_call(principal: str, resource: str, message: HttpMessage, peer: Peer) -> Call:
    """An HTTP request as a call. Its method chooses the action."""
    http: dict[str, object] = {
        "method": message.method,
        "path": message.path,
        "host": message.host,
        "headers": {name: list(lines) for name, lines in message.headers.items()},
    }
    if message.port is not None:
        http["port"] = message.port
    if message.query is not None:
        http["query"] = message.query
    return Call(principal, f"http:{message.method}", resource, {"http": http}, peer)


def grpc_call(
    principal: str, resource: str, path: str, peer: Peer, headers: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Call:
    """A gRPC call as a call; `path` is its `:path`, `/package.Service/Method`."""
    grpc = {"path": path, "headers": {name: list(lines) for name, lines in headers.items()}}
    return Call(principal, "grpc", resource, {"grpc": grpc}, peer)


def connect_call(principal: str, resource: str, port: int, peer: Peer, sni: str | None = None) -> Call:
    """A TCP connection as a call, for protocols of which nothing else is known."""
    context: dict[str, object] = {"port": port}
    if sni is not None:
        context["sni"] = sni
    return Call(principal, "connect", resource, context, peer)


def _action(name: str) -> tuple[str, str | None] | tuple[None, str]:
    """The schema's action and the HTTP method it names, or None and what is wrong with the name."""
    if name in {"grpc", "connect"}:
        return name, None
    if name in _GROUPS:
        return None, f"{name!r} is a group of actions; ask for one action, such as http:GET"
    token = name.removeprefix("http:")
    if token in METHODS:
        return f"http:{token}", token
    if name == "http:other":
        return name, None
    if _TOKEN.fullmatch(token) and (token != name or token.isupper()):
        return "http:other", token
    return None, f"{name[:80]!a} is no action; write an HTTP method as http:GET, or grpc, or connect"


def _http(http: dict[str, object], action: str, method: str | None) -> dict[str, object]:
    """Fill in what the action already says, and refuse what contradicts it."""
    said = http.setdefault("method", method)
    if said is None:
        raise BadContext("context.http.method is missing, and the action http:other does not name it")
    if not isinstance(said, str) or not _TOKEN.fullmatch(said):
        raise BadContext("context.http.method is no HTTP method")
    # An enforcement point that asks for GET and reports DELETE is broken; which of the two it will let through?
    if method is not None and said != method:
        raise BadContext(f"context.http.method is {said}, and the action says {method}")
    if action == "http:other" and said in METHODS:
        raise BadContext(f"context.http.method is {said}, whose action is http:{said}")
    http["path"] = normal_path(str(http["path"]))
    http.setdefault("host", "")  # an HTTP/1.0 request names none
    http.setdefault("headers", {})
    return http


def _grpc(grpc: dict[str, object]) -> dict[str, object]:
    match = _GRPC_PATH.fullmatch(str(grpc["path"]))
    if match is None:
        raise NotNormal("a gRPC path is /package.Service/Method")
    for name, value in (("service", match[1]), ("method", match[2])):
        if grpc.setdefault(name, value) != value:
            raise BadContext(f"context.grpc.{name} is not the one in context.grpc.path")
    grpc.setdefault("headers", {})
    return grpc


def _with_lower_headers(sent: object, family: str) -> object:
    """Header names in lower case (RFC 9110 5.1): a forbid on a header cannot be spelled around."""
    inner = sent.get(family) if isinstance(sent, (dict, Mapping)) else None
    headers = inner.get("headers") if isinstance(inner, (dict, Mapping)) else None
    if not isinstance(headers, (dict, Mapping)) or all(name.islower() for name in headers):
        return sent
    lower = {name.lower(): lines for name, lines in headers.items()}
    if len(lower) != len(headers):
        raise BadContext(f"context.{family}.headers has one name in two spellings")
    assert isinstance(sent, Mapping)
    assert isinstance(inner, Mapping)
    return {**sent, family: {**inner, "headers": lower}}


def _peer(peer: Peer) -> dict[str, object]:
    if peer.ip is None:
        return {"verified": peer.verified}
    try:
        ip = ipaddress.ip_address(peer.ip)
    except ValueError:
        raise BadContext("the peer's address is no IP address") from None
    if isinstance(ip, ipaddress.IPv6Address):
        # ::ffff:192.0.2.1 is 192.0.2.1 on a socket that speaks both, and a zone (%eth0) is no part of the address:
        # one address, one spelling for isInRange.
        ip = ip.ipv4_mapped or ipaddress.IPv6Address(int(ip))
    return {"verified": peer.verified, "ip": {"__extn": {"fn": "ip", "arg": str(ip)}}}


def _record(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


__all__ = [
    "METHODS",
    "Asked",
    "Call",
    "CallReader",
    "HttpMessage",
    "Peer",
    "Shape",
    "Unreadable",
    "connect_call",
    "grpc_call",
    "http_call",
]
