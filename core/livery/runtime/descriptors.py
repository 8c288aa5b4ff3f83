"""File descriptors: as many as the kernel lets us have, and a clear word when they are too few.

Owns: RLIMIT_NOFILE. Does not own: how many a door needs (`limits`).
"""

from __future__ import annotations

import resource
from typing import ClassVar

from livery.errors import Kind, LiveryError

RESERVE = 128  # for the log, the store, files and clients of the same process


class TooFewDescriptors(LiveryError):
    """The bounds of a door do not fit into what the kernel allows this process."""

    code: ClassVar[str] = "too_few_descriptors"
    kind: ClassVar[Kind] = Kind.PRECONDITION


def raise_file_limit() -> int:
    """Raise RLIMIT_NOFILE to its hard limit, and return it. (A child that uses select(2) should lower it again.)"""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def require_descriptors(needed: int) -> None:
    """Make sure that this process may open that many, and some for itself; raises `TooFewDescriptors`."""
    limit = raise_file_limit()
    if limit != resource.RLIM_INFINITY and needed + RESERVE > limit:
        raise TooFewDescriptors(
            "too few file descriptors for the configured number of connections",
            why=f"they need {needed + RESERVE}, the limit is {limit}",
            fix="raise the limit (`ulimit -n`, LimitNOFILE= in systemd) or lower the number of connections",
        )
