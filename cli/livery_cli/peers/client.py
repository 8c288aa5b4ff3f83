"""The other side of a client command: one gRPC channel, and its failures in our words.

Owns: opening a channel to a unix socket and turning an `RpcError` into a `LiveryError` that says what to do. Does not
own: requests and replies; the noun modules build and print those. Synchronous on purpose: a command asks one thing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import grpc
import grpc.aio

from livery.errors import Kind, LiveryError

# SPIFFE_Workload_Endpoint 3: every request says that it means the Workload API.
WORKLOAD_HEADER = (("workload.spiffe.io", "true"),)


class Unreachable(LiveryError):
    """Nobody answered at the address."""

    code: ClassVar[str] = "unreachable"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class Refused(LiveryError):
    """The other side answered, and the answer is no."""

    code: ClassVar[str] = "refused"
    kind: ClassVar[Kind] = Kind.DENIED


class NotFound(LiveryError):
    """The thing asked for is not there."""

    code: ClassVar[str] = "not_found"
    kind: ClassVar[Kind] = Kind.NOT_FOUND


class BadRequest(LiveryError):
    """The request was wrong."""

    code: ClassVar[str] = "invalid"
    kind: ClassVar[Kind] = Kind.INVALID


class PeerFailed(LiveryError):
    """The other side met an error of its own."""

    code: ClassVar[str] = "peer_internal"
    kind: ClassVar[Kind] = Kind.INTERNAL


class NotReady(LiveryError):
    """The other side runs, and cannot do its work at the moment; `why` is its own word for that."""

    code: ClassVar[str] = "not_ready"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a command talks to: what it is called, its address, how to start it, and what to do where it says no."""

    name: str
    address: str
    start_with: str
    if_denied: str = ""


def ca_at(address: str) -> Peer:
    """The CA behind its administration socket."""
    return Peer("the CA", address, "livery ca run", "run the command as the user that the CA runs as, or as root")


def agent_at(address: str) -> Peer:
    """The agent behind the Workload API, which denies a process that no entry describes."""
    if_denied = f"create an entry that describes it (this is user {os.geteuid()}), and give its agent a moment (--wait)"
    return Peer("the agent", address, "livery agent run", if_denied)


@contextmanager
def channel(peer: Peer) -> Iterator[grpc.Channel]:
    """A channel to the peer; an RPC error inside the block leaves it as a `LiveryError`."""
    check_socket(peer)
    opened = grpc.insecure_channel(target(peer.address), options=[("grpc.max_receive_message_length", 64 << 20)])
    try:
        yield opened
    except grpc.RpcError as error:
        raise from_rpc(error, peer) from error
    finally:
        opened.close()


def target(address: str) -> str:
    """`unix:/p`, `unix:///p` and `tcp://ip:port` as gRPC takes them; a bare path is taken for a unix socket."""
    path = socket_path(address)
    # SPIFFE_Workload_Endpoint 4: the endpoint's scheme is unix or tcp.
    # gRPC reads a URI: what is not encoded of a path's "%", "?" and "#" means something else there.
    return address.removeprefix("tcp://") if path is None else f"unix:{quote(os.fsencode(path))}"


def socket_path(address: str) -> Path | None:
    """The path of a unix address; None for another kind of address."""
    if address.startswith("/"):
        return Path(address)
    if not address.startswith("unix:"):
        return None
    rest = address.removeprefix("unix:")
    return Path(rest.removeprefix("//")) if rest.startswith("///") else Path(rest)


def check_socket(peer: Peer) -> None:
    """Say that a socket is missing before gRPC says it less well, after a time-out."""
    path = socket_path(peer.address)
    if path is None:
        _check_port(peer)
        return
    try:
        found = path.is_socket()
    except PermissionError as error:
        raise Refused(
            f"may not look at {path}",
            why=f"user {os.geteuid()} may not enter a directory above it",
            fix="run the command as the user that runs it, or as root",
        ) from error
    except OSError:  # such as a name that is too long for any file
        found = False
    if found and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise Refused(
            f"may not open {peer.address}",
            why=f"its mode does not admit user {os.geteuid()}",
            fix="run the command as the user that runs it, or as root",
        )
    if not found:
        raise Unreachable(
            f"{peer.name} is not at {peer.address}",
            why="no socket there",
            fix=f"start it ({peer.start_with}, or livery up), or name its socket: `livery up` prints it; services of "
            "this machine have theirs under /run/livery",
        )


def _check_port(peer: Peer) -> None:
    if not re.fullmatch(r"(tcp://)?[^\s/]+:[0-9]{1,5}", peer.address):
        raise BadRequest(
            f"{peer.address!r} is no address of {peer.name}",
            why="it is neither a unix socket nor a host and a port",
            fix="write it like unix:/run/livery/ca/admin.sock, or tcp://ADDRESS:PORT where it answers without TLS",
        )


def from_rpc(error: grpc.RpcError, peer: Peer) -> LiveryError:
    """An RPC error in our words."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return PeerFailed(f"{peer.name} could not be asked", why=str(error))
    status = error.code()
    details = error.details() or status.name
    leaf = _BY_STATUS.get(status, Refused)
    if leaf is Unreachable:
        return Unreachable(
            f"{peer.name} did not answer at {peer.address}",
            why=details,
            fix=f"see that it runs ({peer.start_with}) and is ready ({peer.start_with.removesuffix('run')}health), and "
            "that this user may open its socket; or raise --timeout",
        )
    return leaf(f"{peer.name} says: {details}", why=f"gRPC status {status.name}", fix=_next_step(status, peer))


def _next_step(status: grpc.StatusCode, peer: Peer) -> str:
    return peer.if_denied if status is grpc.StatusCode.PERMISSION_DENIED else _NEXT_STEPS.get(status, "")


_BY_STATUS: dict[grpc.StatusCode, type[LiveryError]] = {
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unreachable,
    grpc.StatusCode.CANCELLED: Unreachable,  # by the other side, which is stopping: we cancel nothing
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
    grpc.StatusCode.INTERNAL: PeerFailed,
    grpc.StatusCode.UNKNOWN: PeerFailed,
}


_NO_BUNDLE = "unable to find federated bundle"

_NEXT_STEPS = {
    grpc.StatusCode.INVALID_ARGUMENT: "correct that and run it again; --help says what each option takes",
    grpc.StatusCode.INTERNAL: "its own log says more",
    grpc.StatusCode.UNKNOWN: "its own log says more",
    grpc.StatusCode.NOT_FOUND: "see what there is with `livery entry list` or `livery node list`",
    grpc.StatusCode.ALREADY_EXISTS: "find it with `livery entry list --spiffe-id ID`; `livery entry update` changes it",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "run it again in a while",
    grpc.StatusCode.UNIMPLEMENTED: "see docs/ca.md for what the CA offers, or ask a server that offers it",
}


def check_item(code: int, message: str, peer: Peer) -> None:
    """Raise for an item of a batch that did not come out OK (`spire.api.types.Status`)."""
    if code == grpc.StatusCode.OK.value[0]:
        return
    if _NO_BUNDLE in message:  # SPIRE's code for it is INTERNAL, and ours by that
        why = "it holds bundles of the trust domains that `livery bundle list` shows"
        raise NotFound(f"{peer.name} says: {message}", why=why, fix="federate with one of those, or with none")
    for status in grpc.StatusCode:
        if status.value[0] == code:
            leaf = _BY_STATUS.get(status, Refused)
            what = f"{peer.name} says: {message}"
            raise leaf(what, why=f"gRPC status {status.name}", fix=_next_step(status, peer))
    raise PeerFailed(f"{peer.name} says: {message}", why=f"unknown status {code}")


def tell_warnings(call: grpc.Call) -> None:
    """Tell what the CA warned of while it did as it was asked (its trailer `livery-warning`)."""
    for key, value in call.trailing_metadata() or ():
        if key == "livery-warning":
            print(f"warning: {value if isinstance(value, str) else value.decode()}", file=sys.stderr)


def seconds(timeout: timedelta) -> float:
    """A time-out as gRPC takes it."""
    return timeout.total_seconds()
