"""Who is at the other end of a connection, as a value that handlers receive.

Owns: `PeerProcess` and `Caller`, and the way from a gRPC context to its `Caller`. Does not own: how either is found out
(`livery.runtime.transport.peer` asks the kernel and the TLS object, `livery.runtime.front_door` decides who comes in).

Invariants: a `Caller` exists only after authentication succeeded, is frozen, and disappears with its connection; a
handler can only see the caller of the very connection its call came in on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from livery.errors import Kind, LiveryError

if TYPE_CHECKING:
    from livery.identity import VerifiedX509Svid

LOCAL_ADDRESS = "unix"


class NoCaller(LiveryError):
    """The call did not come through a front door, or its connection is gone."""

    code = "no_caller"
    kind = Kind.UNAUTHENTICATED


class CallerExpired(LiveryError):
    """The connection is still open, but the identity it was opened with has run out."""

    code = "caller_expired"
    kind = Kind.UNAUTHENTICATED


def address_of(peername: Sequence[Any]) -> str:
    """Return the text for what a TCP socket calls its peer: "127.0.0.1:3344" or "[::1]:3344"."""
    host, port = peername[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_of(address: str) -> str:
    """Return the bare IP address in what `address_of` gave."""
    return address.rpartition(":")[0].strip("[]")


@dataclass(frozen=True, slots=True)
class PeerProcess:
    """The process at the other end of a unix socket, as the kernel names it.

    `uid` and `gid` are the effective ones. `start_time` counts clock ticks since boot (proc(5), field 22 of stat).
    `program` is the device and inode of the file it runs; None where we may not see that (proc(5), /proc/pid/exe).
    `pidfd` is owned by the connection and closed with it: whoever needs it longer duplicates it.
    """

    pid: int
    uid: int
    gid: int
    pidfd: int
    start_time: int
    program: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """One authenticated end of one connection. Neither `identity` nor `process` means: anonymous, over TLS.

    `connection` names the connection and is never used twice. `address` is "127.0.0.1:3344", "[::1]:3344" or "unix".
    """

    connection: str
    address: str
    identity: VerifiedX509Svid | None = None
    process: PeerProcess | None = None

    @property
    def is_local(self) -> bool:
        """The caller is a process of this machine, known by its unix socket."""
        return self.process is not None

    @property
    def is_anonymous(self) -> bool:
        """Nothing is known about the caller but its address."""
        return self.identity is None and self.process is None

    @property
    def ip(self) -> str | None:
        """The bare IP address, or None on a unix socket."""
        return None if self.address == LOCAL_ADDRESS else ip_of(self.address)

    @property
    def expires_at(self) -> datetime | None:
        """When the identity of this caller ends; None where there is nothing that ends."""
        return self.identity.not_after if self.identity is not None else None

    def require_current(self, now: datetime) -> None:
        """Raise `CallerExpired` once the identity has run out: a kept-alive connection must not outlive it."""
        if self.expires_at is not None and now > self.expires_at:
            raise CallerExpired(
                "the certificate of this connection has expired",
                why=f"it was valid until {self.expires_at.isoformat()}",
                fix="connect again with a renewed SVID",
            )

    def describe(self) -> str:
        """One word for logs: the SPIFFE ID, `uid:1000/pid:77`, or `anonymous`."""
        if self.identity is not None:
            return str(self.identity.id)
        if self.process is not None:
            return f"uid:{self.process.uid}/pid:{self.process.pid}"
        return "anonymous"


class HasPeer(Protocol):
    """The one thing of a gRPC context that is needed here."""

    def peer(self) -> str:
        """Return grpc's name of the peer: `unix:` and the percent-encoded path it is bound to."""
        ...


@dataclass(frozen=True, slots=True)
class _Binding:
    caller: Caller


_CURRENT: ContextVar[_Binding | None] = ContextVar("livery_caller", default=None)


def peer_connection(context: HasPeer) -> str:
    """Return the connection name behind a context; grpc percent-encodes it, so it is compared unquoted."""
    return unquote(context.peer().removeprefix("unix:"))


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Make `caller` the one `caller_of` finds, for the length of one call. The front door's business, and a test's."""
    token = _CURRENT.set(_Binding(caller))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def caller_of(context: HasPeer) -> Caller:
    """Return who makes this call; raises `NoCaller` when no front door vouches for the connection it came in on."""
    binding = _CURRENT.get()
    if binding is None or binding.caller.connection != peer_connection(context):
        raise NoCaller("this call has no caller", why="its connection did not come through a front door")
    return binding.caller
