"""The folder of the private sockets behind a front door or a dialer.

Owns: one directory per door, entered by our own UID alone; names in it; its removal, and that of the leftovers of
processes that were killed. Does not own: the sockets.

Invariants: names are of `[a-z0-9/]` below the directory and never used twice; a directory whose owner lives is never
swept (its owner holds a lock on it); every path fits into a socket address.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from livery.errors import Kind, LiveryError
from livery.runtime.files import private_directory

MAX_SOCKET_PATH = 107  # bytes: sun_path holds 108 with its final NUL (unix(7))
_PREFIX = "lv"
_OURS = re.compile(r"lv[0-9a-f]{8}")
_LONGEST = len("/lv01234567/") + len(f"{2**53:x}")


class NoPrivateDirectory(LiveryError):
    """There is no place for the private sockets."""

    code = "no_private_directory"
    kind = Kind.PRECONDITION


class PrivateDirectory:
    """Sockets' names in a folder of our own; make it with `create`."""

    __slots__ = ("_descriptor", "_numbers", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._numbers = itertools.count(1)

    @classmethod
    def create(cls, base: Path) -> PrivateDirectory:
        """Make a directory under `base`, or under the system's temporary one if paths in `base` would be too long."""
        fits = len(os.fsencode(base.absolute())) + _LONGEST <= MAX_SOCKET_PATH
        place = private_directory(base.absolute()) if fits else Path(tempfile.gettempdir())
        sweep(place)
        try:
            return cls._make(place)
        except OSError as error:
            raise NoPrivateDirectory(
                f"cannot make a directory for private sockets in {place}",
                why=error.strerror or str(error),
                fix=f"make {place} writable for user {os.geteuid()}",
            ) from error

    @classmethod
    def _make(cls, place: Path) -> PrivateDirectory:
        while True:
            path = place / f"{_PREFIX}{secrets.token_hex(4)}"
            path.mkdir(mode=0o700)
            # Another process may sweep it before it is locked: then the next name is taken.
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if _locked(descriptor) and _is_at(descriptor, path):
                return cls(path, descriptor)
            os.close(descriptor)

    def new_name(self) -> Path:
        """Return a path in here that was never returned before."""
        return self.path / f"{next(self._numbers):x}"

    def remove(self) -> None:
        """Remove the directory and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            os.close(self._descriptor)


def sweep(place: Path) -> None:
    """Remove the directories in `place` that are ours and whose process has ended."""
    for path in list(_leftovers(place)):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        if _locked(descriptor):
            shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _leftovers(place: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and _is_own(entry):
                yield Path(entry.path)


def _is_own(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    return False


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
