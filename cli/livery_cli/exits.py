"""The exit codes of `livery`, and the one place where an error becomes one.

Owns: the table of codes (documented in `docs/cli.md`) and the three lines by which an error is told. Does not own:
which error arises; commands raise `LiveryError`, and `main` maps it here, once.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import ClassVar

from livery.errors import Kind, LiveryError
from livery_cli.plain_text import one_line


class Exit(IntEnum):
    """What the process's exit code says."""

    DONE = 0
    NO = 1  # the answer is no: denied, unhealthy, invalid, differs
    USAGE = 2  # wrong usage or configuration
    UNREACHABLE = 3  # the other side could not be reached
    REFUSED = 4  # refused, not found, or in conflict
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT


class OutputLost(LiveryError):
    """What a command had to say could not be written: a full disk, most likely."""

    code: ClassVar[str] = "output_lost"
    kind: ClassVar[Kind] = Kind.EXHAUSTED


class NotText(LiveryError):
    """An argument holds bytes that are no text, where text is sent."""

    code: ClassVar[str] = "not_text"
    kind: ClassVar[Kind] = Kind.INVALID


_BY_KIND = {
    Kind.INVALID: Exit.USAGE,
    Kind.UNAVAILABLE: Exit.UNREACHABLE,
    Kind.INTERNAL: Exit.INTERNAL,
}


def exit_code(error: LiveryError) -> Exit:
    """The exit code of an error, by its kind; every kind not listed is a refusal."""
    return _BY_KIND.get(error.kind, Exit.REFUSED)


def tell(error: LiveryError) -> None:
    """Print what happened, why, and what to do next, one line each, to standard error."""
    lines = [f"error: {one_line(error.what)} [{error.code}]"]
    if error.why:
        lines.append(f"  why: {one_line(error.why)}")
    if error.fix:
        lines.append(f"  fix: {one_line(error.fix)}")
    print("\n".join(lines), file=sys.stderr)
