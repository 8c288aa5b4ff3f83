"""Files that must survive a crash and stay private: written whole or not at all, readable by their owner alone.

Owns: atomic writing, reading with a check of who else could have read, private directories, and the lock by which one
process owns a state directory. Does not own: what is in the files, nor where they are.

Invariants: after `write_atomic` returns, the data is on the disk under its name; if it raises, the old file is as it
was (or, if only the directory's last sync failed, replaced whole) and nothing else is left behind. A file that
`read_private` returns could be read by its owner and root only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from livery.errors import Kind, LiveryError

MAX_PRIVATE_BYTES = 16 * 1024 * 1024
_LEFTOVER_SUFFIX = ".livery-tmp"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileError(LiveryError):
    """A file of ours could not be used as asked."""

    code: ClassVar[str] = "file_error"
    kind: ClassVar[Kind] = Kind.INTERNAL


class FileNotWritten(FileError):
    """The file could not be written; what was there before is unchanged."""

    code: ClassVar[str] = "file_not_written"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class StorageFull(FileNotWritten):
    """No room was left for the new content; what was there before is unchanged."""

    code: ClassVar[str] = "storage_full"


class FileNotRead(FileError):
    """The file is missing, of the wrong type, or may not be read by us."""

    code: ClassVar[str] = "file_not_read"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class FileMissing(FileNotRead):
    """There is no such file."""

    code: ClassVar[str] = "file_missing"
    kind: ClassVar[Kind] = Kind.NOT_FOUND


class NotPrivate(FileNotRead):
    """Somebody else can read or write what must be private."""

    code: ClassVar[str] = "not_private"


class StateLocked(FileError):
    """Another process owns this state directory."""

    code: ClassVar[str] = "state_locked"
    kind: ClassVar[Kind] = Kind.CONFLICT


def write_atomic(path: Path | str, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` with permissions `mode`, durably: temporary file, fsync, rename, fsync of the directory.

    Raises `StorageFull` or `FileNotWritten`; then `path` is as it was before.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}{_LEFTOVER_SUFFIX}")
    try:
        _write_new(temporary, data, mode)
        temporary.replace(target)
        _sync_directory(target.parent)
    except OSError as cause:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _not_written(target, cause) from cause


def _write_new(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        # Not before the content is complete, and not left to the umask.
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _not_written(path: Path, cause: OSError) -> FileNotWritten:
    why = os.strerror(cause.errno) if cause.errno else "unknown reason"
    if cause.errno in _NO_ROOM:
        return StorageFull(f"no room to write {path}", why=why, fix=f"free space under {path.parent}; nothing was lost")
    fix = f"make {path.parent} a directory that user {os.geteuid()} may write; nothing was lost"
    return FileNotWritten(f"could not write {path}", why=why, fix=fix)


def sweep_leftovers(directory: Path | str) -> int:
    """Remove what a killed `write_atomic` left in `directory`, and say how many; call it holding the state's lock."""
    swept = 0
    for leftover in Path(directory).glob(f".*{_LEFTOVER_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            leftover.unlink()
            swept += 1
    return swept


def read_private(path: Path | str, limit: int = MAX_PRIVATE_BYTES) -> bytes:
    """The content of a file that only its owner (we, or root) can read or write.

    Raises `FileMissing`, `NotPrivate`, or `FileNotRead` (also when it is longer than `limit` bytes).
    """
    target = Path(path)
    try:
        # Without O_NONBLOCK a named pipe of that name would hold us up for ever.
        fd = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as cause:
        raise FileMissing(f"there is no file {target}") from cause
    except OSError as cause:
        why = os.strerror(cause.errno) if cause.errno else ""
        raise FileNotRead(f"could not read {target}", why=why, fix=f"let user {os.geteuid()} read it") from cause
    try:
        # The open descriptor is judged, not the name, which may point elsewhere a moment later.
        _require_private(target, os.fstat(fd))
        with open(fd, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as cause:
        why = os.strerror(cause.errno) if cause.errno else ""
        raise FileNotRead(f"could not read {target}", why=why, fix="look at the disk it is on") from cause
    finally:
        os.close(fd)
    if len(content) > limit:
        raise FileNotRead(f"{target} is longer than {limit} bytes")
    return content


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileNotRead(f"{path} is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        why = f"it belongs to user {status.st_uid}"
        raise NotPrivate(f"{path} is not ours", why=why, fix=f"chown {os.geteuid()} {path}")
    if status.st_mode & 0o077:
        why = f"its permissions are {stat.S_IMODE(status.st_mode):04o}"
        raise NotPrivate(f"{path} can be read or written by others", why=why, fix=f"chmod 600 {path}")


def private_directory(path: Path | str) -> Path:
    """Make sure that `path` is a directory which only we can enter (0700), creating it and its parents.

    Raises `FileNotWritten` if it cannot be made, `NotPrivate` if it belongs to somebody else.
    """
    target = Path(path)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = target.stat()
        if status.st_uid != os.geteuid():
            why = f"it belongs to user {status.st_uid}"
            raise NotPrivate(f"{target} is not ours", why=why, fix=f"chown {os.geteuid()} {target}, or choose another")
        if stat.S_IMODE(status.st_mode) != 0o700:
            target.chmod(0o700)
    except OSError as cause:
        raise _not_written(target, cause) from cause
    return target


def passable_directory(path: Path | str) -> Path:
    """Make a directory and its parents, where they are not there: others may pass through them and not look around.

    0711, whatever the umask: a socket in it may be for everybody. Raises `FileNotWritten`.
    """
    target = Path(path)
    try:
        for directory in reversed([each for each in (target, *target.parents) if not each.exists()]):
            with contextlib.suppress(FileExistsError):  # made by somebody else meanwhile, as he likes it
                directory.mkdir(mode=0o700)
                directory.chmod(0o711)
        target.mkdir(exist_ok=True)  # what is there may be a file
    except OSError as cause:
        raise _not_written(target, cause) from cause
    return target


class StateLock:
    """The right to use a state directory, held by at most one process: `with StateLock(state / "lock"): ...`.

    The kernel releases it when the process ends, however it ends; the file stays and names the last holder.
    """

    __slots__ = ("_fd", "_path")

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `StateLocked` naming the holder's process."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as cause:
            raise _not_written(self._path, cause) from cause
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        except BlockingIOError as cause:
            raise self._locked(fd) from cause
        except OSError as cause:
            os.close(fd)
            raise _not_written(self._path, cause) from cause
        self._fd = fd

    def _locked(self, fd: int) -> StateLocked:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        who = f"process {holder}" if holder.isdigit() else "another process"
        what = f"{self._path.parent} is in use"
        return StateLocked(what, why=f"{who} holds its lock", fix="stop that process, or use another state directory")

    def release(self) -> None:
        """Give the lock back; without effect if it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
