"""The `unix` workload attestor: who a process is to the operating system.

Owns: the selectors `unix:uid`, `user`, `gid`, `group`, `supplementary_gid`, `supplementary_group`, `path` and
`sha256`, read from /proc and tied to the process's pidfd. Does not own: the pidfd (the connection does) or the
matching.

Invariants:
- Users and groups are the *effective* ones, and the effective user is the one the kernel named when the process
  connected.
- /proc is read between two looks at the pidfd, so that what was read is of this process and not of a later one with its
  number.
- A selector that cannot be known (no such user name, an unreadable or replaced program) is left out. Leaving one out
  can only make fewer entries match.

What it cannot see: a process that forks and then becomes a trusted program is attested as that program while its child
holds the connection. `path` and `sha256` alone are therefore weak; see docs/threat-model.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from livery.errors import LiveryError
from livery.identity import Selector
from livery.identity.errors import InvalidSelector
from livery.runtime.caller import PeerProcess
from livery.runtime.clock import Clock
from livery.runtime.completion import whole
from livery.runtime.transport.peer import still_same
from livery_agent.errors import WorkloadChanged, WorkloadUnattested
from livery_agent.turns import Turns

TYPE = "unix"
MAX_HASHES = 256  # programs whose hash is remembered
THREADS = 8
THREADS_PER_USER = 2  # a program changed again and again is hashed again and again: that is its user's own time
_DELETED = " (deleted)"
_EFFECTIVE = 1  # proc(5): "Uid:  real  effective  saved  filesystem"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The effective user and group of a process, and its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class UnixAttestor:
    """Reads /proc in threads of its own: a name service that hangs, or a big program, holds up no other work.

    One user's processes are looked at by two threads at most, so that big programs hold up their own user alone. A
    thread counts until it is done: also one whose caller has left, or has waited long enough.

    Programs of more than `hash_limit` bytes get no `sha256` selector; 0 means none is ever hashed.
    """

    method = TYPE

    def __init__(self, hash_limit: int, clock: Clock) -> None:
        self._hashes = ProgramHashes(hash_limit, clock)
        self._turns = Turns(THREADS, THREADS_PER_USER)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="attest-unix")

    async def attest(self, process: PeerProcess) -> frozenset[Selector]:
        """The selectors of the process; raises `WorkloadChanged` if it is not, or does not stay, who connected."""
        looking = asyncio.create_task(self._look(process))
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            looking.cancel()  # so that it waits for no turn any more; a thread goes on
            raise

    async def _look(self, process: PeerProcess) -> frozenset[Selector]:
        async with self._turns.turn(process.uid):
            pidfd = os.dup(process.pidfd)  # the connection closes its own once no call needs it: a thread may be longer
            try:
                own = replace(process, pidfd=pidfd)
                return await whole(asyncio.get_running_loop().run_in_executor(self._threads, self._attest, own))
            finally:
                os.close(pidfd)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _attest(self, process: PeerProcess) -> frozenset[Selector]:
        require_same(process)
        try:
            selectors = frozenset(_valid(self._pairs(process.pid, read_credentials(process.pid))))
        except OSError as cause:
            require_same(process)
            raise WorkloadUnattested("the calling process cannot be looked at", why=str(cause)) from cause
        require_same(process)
        return selectors

    def _pairs(self, pid: int, credentials: Credentials) -> Iterator[tuple[str, str | None]]:
        yield "uid", str(credentials.uid)
        yield "user", _user_name(credentials.uid)
        yield "gid", str(credentials.gid)
        yield "group", _group_name(credentials.gid)
        for gid in credentials.groups:
            yield "supplementary_gid", str(gid)
            yield "supplementary_group", _group_name(gid)
        yield "path", program_path(pid)
        yield "sha256", self._hashes.of(pid)


def require_same(process: PeerProcess) -> None:
    """Raise `WorkloadChanged` unless the process lives and is still what it was when it connected."""
    try:
        still_same(process)
    except LiveryError as cause:
        raise WorkloadChanged("the calling process is not the one that connected", why=cause.what) from cause


def _valid(pairs: Iterator[tuple[str, str | None]]) -> Iterator[Selector]:
    for name, value in pairs:
        # A path may hold what a selector may not (a line break, bytes that are no text): then it cannot match either.
        with contextlib.suppress(InvalidSelector):
            if value is not None:
                yield Selector(TYPE, f"{name}:{value}")


def read_credentials(pid: int) -> Credentials:
    """The effective credentials of a process, from /proc/<pid>/status."""
    fields: dict[str, list[str]] = {}
    for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
        name, _, rest = line.partition(":")
        fields.setdefault(name, rest.split())
    try:
        groups = tuple(int(gid) for gid in fields["Groups"])
        return Credentials(int(fields["Uid"][_EFFECTIVE]), int(fields["Gid"][_EFFECTIVE]), groups)
    except (KeyError, IndexError, ValueError) as cause:
        raise WorkloadUnattested(f"/proc/{pid}/status is not what proc(5) says") from cause


def program_path(pid: int) -> str | None:
    """The path of the program a process runs, or None: not ours to see, or the file was removed or replaced since."""
    link = Path(f"/proc/{pid}/exe")
    try:
        path = str(link.readlink())
        unlinked = link.stat().st_nlink == 0
    except OSError:
        return None
    return None if unlinked or path.endswith(_DELETED) else path


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return None


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class _File:
    device: int
    inode: int
    size: int
    modified: int  # ns
    changed: int  # ns


class ProgramHashes:
    """SHA-256 of running programs, remembered per file as the kernel identifies it and as long as it is unchanged."""

    SETTLED = 2.0  # seconds: file times are coarser than a write, so a file changed just now is not remembered

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._known: dict[_File, str] = {}
        self._lock = Lock()

    def of(self, pid: int) -> str | None:
        """The hash of the program the process runs, in lower-case hex; None if it is too big or not ours to read."""
        if self._limit <= 0:
            return None
        try:
            # This link opens the running program itself, also after its path was replaced.
            fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(fd, "rb") as program:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > self._limit:
                return None
            file = _File(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = self._known.get(file)
            if known is not None:
                return known
            digest = hashlib.file_digest(program, "sha256").hexdigest()
        self._remember(file, digest)
        return digest

    def _remember(self, file: _File, digest: str) -> None:
        if self._clock.now().timestamp() - file.changed / 1e9 < self.SETTLED:
            return
        with self._lock:
            while len(self._known) >= MAX_HASHES:
                del self._known[next(iter(self._known))]
            self._known[file] = digest
