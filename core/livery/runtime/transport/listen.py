"""Where a front door listens, and getting the socket for it.

Owns: `TcpListen` and `UnixListen`, the bound sockets behind them, and clear errors when a port is taken or a folder
cannot be written. Does not own: accepting.

Invariants: a unix socket has its final mode from the moment it is visible; a live listener's socket is never taken
over, also if two begin at the same time; on close only our own socket file is removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, SpiffeId, X509Svid
from livery.runtime.transport.private_directory import MAX_SOCKET_PATH

BACKLOG = 1024
_LAST_PORT = 65535
_TURN = 2.0  # seconds; to bind takes far less than one
_TRIES = 200


class CannotListen(LiveryError):
    """The address is taken, or may not be used."""

    code: ClassVar[str] = "cannot_listen"
    kind: ClassVar[Kind] = Kind.CONFLICT


class NotAdmitted(LiveryError):
    """Known, and not wanted at this door."""

    code: ClassVar[str] = "not_admitted"
    kind: ClassVar[Kind] = Kind.DENIED


class DoorIdentity(Protocol):
    """Who a door is, read at every accept: cheap, and a changed value is a new object.

    `bundles` holds the bundle of the door's own trust domain and of the domains named in `admin_ids`, no others.
    """

    def svid(self) -> X509Svid:
        """Return the SVID to show."""
        ...

    def bundles(self) -> BundleMap:
        """Return the bundles that client certificates may chain to."""
        ...


@dataclass(frozen=True, slots=True)
class TcpListen:
    """TLS on TCP; a client certificate is asked for and not demanded.

    `admits_id` returns why an ID may not come in, or None. Without it, IDs of the door's own trust domain may. Port 0
    takes a free one.
    """

    host: str
    port: int
    identity: DoorIdentity
    admits_id: Callable[[SpiffeId], str | None] | None = None

    def require_admitted(self, spiffe_id: SpiffeId) -> None:
        """Raise `NotAdmitted` unless this ID is wanted here."""
        if self.admits_id is not None:
            why = self.admits_id(spiffe_id)
        else:
            own = self.identity.svid().id.trust_domain
            why = None if spiffe_id.member_of(own) else f"it is not of {own}"
        if why is not None:
            raise NotAdmitted(f"{spiffe_id} is not admitted", why=why)


@dataclass(frozen=True, slots=True)
class UnixListen:
    """A unix socket of this mode; `admits` says which effective UIDs may come in (None: all that can reach it)."""

    path: Path
    mode: int = 0o600
    admits: Callable[[int], bool] | None = None


Listen = TcpListen | UnixListen


@dataclass(slots=True)
class Bound:
    """A bound socket and the name clients use for it."""

    sock: socket.socket
    address: str
    path: Path | None = None
    inode: int = 0

    def withdraw(self) -> None:
        """Remove the socket's file, unless somebody else's stands there; once, and while it still listens.

        Whoever listens there next finds nobody then, and puts a file in its place that may well get the same inode.
        """
        path, self.path = self.path, None
        try:
            if path is not None and path.lstat().st_ino == self.inode:
                path.unlink()
        except OSError:
            pass  # it is gone, or its folder is

    def release(self) -> None:
        """Remove the socket's file, if that was not done, and close the socket."""
        self.withdraw()
        self.sock.close()


def bind(listen: Listen) -> Bound:
    """Return a bound socket for an address. Raises `CannotListen`."""
    return _bind_tcp(listen) if isinstance(listen, TcpListen) else _bind_unix(listen)


def _bind_tcp(listen: TcpListen) -> Bound:
    where = f"{listen.host}:{listen.port}"
    if not 0 <= listen.port <= _LAST_PORT:  # the C library would take the lower 16 bits of it
        raise CannotListen(f"cannot listen on {where}", why=f"a port is a number from 0 to {_LAST_PORT}")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            listen.host or None, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the latter for a host that cannot be a name
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        raise CannotListen(f"cannot listen on {where}", why=why, fix="give an address of this machine") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(target)
        sock.listen(BACKLOG)  # a taken port may show only here
    except OSError as error:
        sock.close()
        raise CannotListen(
            f"cannot listen on {where}",
            why=error.strerror or str(error),
            fix="stop what listens there, or choose another",
        ) from error
    sock.setblocking(False)
    host, port = sock.getsockname()[:2]
    return Bound(sock, f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}")


def _bind_unix(listen: UnixListen) -> Bound:
    path = listen.path.absolute()
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        why = f"a socket's path has at most {MAX_SOCKET_PATH} bytes, this one has {len(os.fsencode(path))}"
        raise CannotListen(f"cannot listen on {path}", why=why, fix="choose a shorter path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(path.parent):
            _clear(path)
            sock = _bound(path, listen.mode)
            return Bound(sock, f"unix:{path}", path, path.lstat().st_ino)
    except OSError as error:
        fix = f"make {path.parent} writable for user {os.geteuid()}"
        raise CannotListen(f"cannot listen on {path}", why=error.strerror or str(error), fix=fix) from error


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep another process of livery from taking a socket that is bound, and does not listen yet, for one left behind.

    Not for longer than `_TURN`: the folder may be one in which anybody can hold a lock.
    """
    with ExitStack() as held:
        with suppress(OSError):  # a folder that we may not read, or that knows no locks
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            _lock(descriptor)
        yield


def _lock(descriptor: int) -> None:
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_TURN / _TRIES)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more; anything else that is in the way stays."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(f"cannot listen on {path}", why="a file that is not a socket is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        reached = probe.connect_ex(str(path))
    if reached in {errno.ECONNREFUSED, errno.ENOENT}:
        path.unlink(missing_ok=True)
        return
    why = "another process listens there" if reached in {0, errno.EAGAIN} else os.strerror(reached)
    raise CannotListen(f"cannot listen on {path}", why=why, fix="stop that process, or choose another path")


def _bound(path: Path, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Linux gives the file the socket's own mode, so it is never wider than asked, not even for a moment.
        os.fchmod(sock.fileno(), mode)
        sock.bind(str(path))
        path.chmod(mode)  # what the umask took
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
