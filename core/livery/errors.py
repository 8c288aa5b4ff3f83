"""The root of every error livery raises, and the few kinds they come in.

Owns: `LiveryError`, which carries what a person needs (what happened, why, what to do next) and what a program needs
(`code`, a stable machine word, and `kind`, what a caller would do differently). Does not own: gRPC and HTTP codes;
`livery.runtime.problems` maps kinds to those, and nothing else does.

Invariant: a leaf error sets `code` and `kind` as class attributes, so that no table anywhere has to name leaf classes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """What a caller would do differently about an error; one word per reaction."""

    INVALID = "invalid"  # the request itself is wrong: mend it, do not retry
    UNAUTHENTICATED = "unauthenticated"  # prove who you are first
    DENIED = "denied"  # we know who you are, and the answer is no
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"  # it exists already, or is held by someone else
    PRECONDITION = "precondition"  # right request, wrong state of the system
    EXHAUSTED = "exhausted"  # over a limit: slow down
    UNAVAILABLE = "unavailable"  # not now: retry with back-off
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"  # our fault


class LiveryError(Exception):
    """An error with a text for people (what, why, what to do) and a code and kind for programs.

    `what` is one line; `why` and `fix` are one line each and may be empty. None of them ever holds a secret.
    """

    code: ClassVar[str] = "internal"
    kind: ClassVar[Kind] = Kind.INTERNAL

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what
