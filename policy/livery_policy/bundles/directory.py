"""A directory of policies: `*.cedar`, one level, read whole or not at all.

Owns: reading, its bounds, and `fingerprint`, by which a change is noticed cheaply. Does not own: what the text means.

Invariant: whatever a name of the directory leads to (nowhere, itself, a pipe that nobody writes), reading it ends, with
its text or with `UnreadablePolicies`. A file that is silently left out could hold a forbid.
"""

from __future__ import annotations

import stat
from pathlib import Path

from livery_policy.engine.source import MAX_FILE, PolicyFile
from livery_policy.errors import UnreadablePolicies

MAX_FILES = 10_000
SUFFIX = ".cedar"

Fingerprint = tuple[tuple[str, int, int, int], ...]


def read_directory(directory: Path) -> tuple[PolicyFile, ...]:
    """Every policy file of the directory, by name."""
    return tuple(read_file(path, path.name, only_regular=True) for path in _files(directory))


def read_file(path: Path, name: str | None = None, *, only_regular: bool = False) -> PolicyFile:
    """One policy file; `name` is how findings call it (the path itself if not given).

    With `only_regular`, a pipe or a device is refused instead of waited for.
    """
    shown = _printable(name or str(path))
    try:
        if only_regular and not stat.S_ISREG(path.stat().st_mode):
            fix = "remove it, or put a file in its place"
            raise UnreadablePolicies(f"{shown} cannot be read", why="it is no regular file", fix=fix)
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as e:
        fix = "check that the server's user may read it"
        raise UnreadablePolicies(f"{shown} cannot be read", why=e.strerror or str(e), fix=fix) from e
    if len(data) > MAX_FILE:
        raise UnreadablePolicies(f"{shown} is too long", why=f"at most {MAX_FILE} bytes are read", fix="split it")
    try:
        return PolicyFile(path.stem, shown, data.decode("utf-8"))
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise UnreadablePolicies(f"{shown}:{line}: not UTF-8", fix="save the file as UTF-8") from e


def fingerprint(directory: Path) -> Fingerprint:
    """Changes whenever a policy file is added, removed, replaced or written to."""
    found = []
    for path in _files(directory):
        try:
            seen = path.stat()
        except OSError:  # removed since it was listed, or it leads nowhere: reading tells which
            found.append((path.name, 0, 0, 0))
        else:
            found.append((path.name, seen.st_mtime_ns, seen.st_size, seen.st_ino))
    return tuple(found)


def _files(directory: Path) -> list[Path]:
    try:
        found = [path for path in directory.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")]
    except OSError as e:
        fix = "make the directory, or name another in policy_dir"
        raise UnreadablePolicies(f"{directory} cannot be read", why=e.strerror or str(e), fix=fix) from e
    if len(found) > MAX_FILES:
        raise UnreadablePolicies(f"{directory} holds more than {MAX_FILES} policy files")
    return sorted(found)


def _printable(name: str) -> str:
    """A file's name may be any bytes; what findings say of it is text."""
    return name if name.isprintable() else ascii(name)
