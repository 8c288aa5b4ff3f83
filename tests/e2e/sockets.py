"""Every socket on which a process and its children listen, as the kernel tells it.

Owns: reading /proc. Nothing of livery is asked: what a role forgot to tell is found here all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

_ACCEPTS = 0x10000  # __SO_ACCEPTCON, linux/net.h: the flag of a listening unix socket


@dataclass(frozen=True, slots=True, order=True)
class TcpSocket:
    """A TCP address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class UnixSocket:
    """A unix address; one that begins with `@` has no file (unix(7), abstract)."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def enterable_by_others(self) -> bool:
        """Whether the modes of the socket and of each directory above it let everybody connect."""
        path = Path(self.path)
        return bool(path.stat().st_mode & 0o002) and all(above.stat().st_mode & 0o001 for above in path.parents)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def tcp_listening(pids: Iterable[int]) -> set[TcpSocket]:
    """The TCP sockets on which these processes accept."""
    return {
        TcpSocket(found.laddr.ip, found.laddr.port)
        for pid in pids
        for found in psutil.Process(pid).net_connections(kind="tcp")
        if found.status == psutil.CONN_LISTEN
    }


def unix_listening(pids: Iterable[int]) -> set[UnixSocket]:
    """The unix sockets on which these processes accept."""
    inodes = {inode for pid in pids for inode in _socket_inodes(pid)}
    rows = [line.split(None, 7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {UnixSocket(row[7]) for row in rows if len(row) == 8 and int(row[3], 16) & _ACCEPTS and row[6] in inodes}


def _socket_inodes(pid: int) -> Iterable[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            yield target.removeprefix("socket:[").removesuffix("]")
