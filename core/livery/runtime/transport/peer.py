"""The peer of a connection, as the kernel and TLS know it.

Owns: from a unix socket to a `PeerProcess` (SO_PEERPIDFD where the kernel has it, else SO_PEERCRED with a pidfd opened
by number), the check that a process is still the one it was, from a TLS connection to its verified SVID, and when that
should be shown anew. Does not own: what the peer may do, nor a pidfd once returned: the connection closes that.

Invariants: a `PeerProcess` was alive while its start time was read, so the number and the process belong together; a
process that ended, or that this PID namespace cannot see, is never returned.
"""

from __future__ import annotations

import _ssl
import errno
import os
import select
import socket
import ssl
import struct
import sys
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography import x509

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, VerifiedX509Svid, parse_chain, verify_x509
from livery.runtime.caller import PeerProcess

SO_PEERPIDFD = 77  # Linux 6.5, include/uapi/asm-generic/socket.h; the socket module does not name it yet
_UCRED = struct.Struct("3i")
_INT = struct.Struct("i")
_STAT_START_TIME = 19  # proc(5): field 22 of stat, counted from the state that follows the command's parenthesis
_STATUS_EFFECTIVE = 2  # proc(5): "Uid:  real  effective  saved  filesystem", the name included


class PeerGone(LiveryError):
    """The process at the other end ended, or is no longer the one that connected."""

    code = "peer_gone"
    kind = Kind.UNAUTHENTICATED


class PeerSocket(Protocol):
    """What is asked of a socket; uvloop's stand-in has it too."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """Return an option's bytes."""
        ...


def process_of(sock: PeerSocket) -> PeerProcess:
    """Return the process at the other end of a connected unix socket; raises `PeerGone`.

    The pidfd in the result belongs to the caller from then on.
    """
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    pidfd = _pidfd_of(sock, pid)
    try:
        _require_number(pidfd, pid)
        started, program = _start_time(pid), _program(pid)
        process = PeerProcess(pid=pid, uid=uid, gid=gid, pidfd=pidfd, start_time=started, program=program)
        still_same(process)
    except BaseException:
        os.close(pidfd)
        raise
    return process


def still_same(process: PeerProcess) -> None:
    """Raise `PeerGone` unless the process lives, started when it did, and runs as the user and the program it did.

    Ask again before the first reply that depends on who the peer is: a pidfd keeps a number from being mistaken, the
    UID is what a set-user-ID exec changes, and the program is what any exec changes.
    """
    started, uid, program = _start_time(process.pid), _effective_uid(process.pid), _program(process.pid)
    # Last, because a pidfd that is still alive now proves that the readings above were of this very process.
    if _ended(process.pidfd):
        raise PeerGone("the calling process has ended", why=f"pid {process.pid} exited")
    if started != process.start_time:
        raise PeerGone("the calling process has ended", why=f"pid {process.pid} now belongs to another process")
    if uid != process.uid:
        raise PeerGone("the calling process changed who it is", why=f"uid {process.uid} when it connected, {uid} now")
    if program != process.program:
        raise PeerGone("the calling process became another program", why=f"pid {process.pid} called exec")


def _pidfd_of(sock: PeerSocket, pid: int) -> int:
    try:
        return int(_INT.unpack(sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _INT.size))[0])
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return _open_pidfd(pid)
        # By number it could be somebody else's by now: a kernel that has the option and fails says that the peer ended.
        raise PeerGone("the calling process has ended", why=f"pid {pid}: {error.strerror}") from error


def _open_pidfd(pid: int) -> int:
    # Before Linux 6.5 the number may have been reused between connect and here: the caller compares UID and start.
    if pid <= 0:
        raise PeerGone("the calling process cannot be identified", why="it lives outside of this PID namespace")
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise PeerGone("the calling process has ended", why=f"pid {pid}: {error.strerror}") from error


def _require_number(pidfd: int, pid: int) -> None:
    # A dead peer: newer kernels hand out a pidfd of nobody ("Pid: -1"), older ones fail before.
    seen = _pid_behind(pidfd)
    if seen != pid or pid <= 0:
        raise PeerGone("the calling process cannot be identified", why=f"its pid is {seen}, it connected as {pid}")


def _pid_behind(pidfd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii").splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1


def _ended(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)  # pidfd_open(2): readable once the process has ended
    return bool(poller.poll(0))


def _start_time(pid: int) -> int:
    # The command may hold spaces and parentheses of its own, so count from the last one.
    return int(_proc(pid, "stat").rpartition(b")")[2].split()[_STAT_START_TIME])


def _effective_uid(pid: int) -> int:
    for line in _proc(pid, "status").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[_STATUS_EFFECTIVE])
    raise PeerGone("the calling process cannot be identified", why=f"/proc/{pid}/status names no UID")


def _program(pid: int) -> tuple[int, int] | None:
    try:
        status = Path(f"/proc/{pid}/exe").stat()
    except OSError:
        return None  # a process of another user, which only root may look at; or one that has just ended
    return status.st_dev, status.st_ino


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError as error:
        raise PeerGone("the calling process has ended", why=f"/proc/{pid}/{name}: {error.strerror}") from error


def peer_chain(tls: ssl.SSLObject) -> tuple[x509.Certificate, ...]:
    """Return the certificates that the peer sent, leaf first; none without a client certificate. Nothing is verified.

    Raises `InvalidX509Svid` for a chain that is too long or cannot be parsed.
    """
    if not tls.getpeercert(binary_form=True):  # without one, the chain below is not empty but None
        return ()
    return parse_chain(b"".join(_unverified_chain(tls)))


def verified_peer(tls: ssl.SSLObject, bundles: BundleMap, at: datetime) -> VerifiedX509Svid | None:
    """Return who the peer proved to be as of `at`; None if it showed no certificate. Raises an `IdentityError`.

    Call it right after the handshake and before any byte is used: OpenSSL accepts what SPIFFE does not (two URI SANs,
    a CA as a leaf, an ID that another trust domain's authority minted).
    """
    chain = peer_chain(tls)
    return verify_x509(chain, bundles, at) if chain else None


def _unverified_chain(tls: ssl.SSLObject) -> list[bytes]:
    if sys.version_info >= (3, 13):
        return tls.get_unverified_chain()
    # Public from Python 3.13 on; below, the same call is there under this name.
    certificates = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
    return [each.public_bytes(_ssl.ENCODING_DER) for each in certificates]


def turning_point(identity: VerifiedX509Svid, now: datetime) -> datetime | None:
    """Return when a quarter of the identity's life is left; None if that is past.

    A connection opened later than that is left alone: asking for a new one would bring another just like it.
    """
    point = identity.not_after - (identity.not_after - identity.not_before) / 4
    return point if now < point else None
