"""Rows read as values, or told to be damaged: SQLite finds a broken page, and not a broken value in a sound one.

Owns: what becomes of a value that we never wrote. Does not own: the rows, nor the words for it (`errors`).

Invariant: `UnreadableRow` does not leave the store; the database, which knows its file, says it as `StoreCorrupt`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from livery.identity import IdentityError

P = ParamSpec("P")
Value = TypeVar("Value")

_DAMAGE = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, IdentityError)


class UnreadableRow(Exception):
    """A row holds what it cannot. The text does not repeat it: it may be a secret."""


def decodes(read: Callable[P, Value]) -> Callable[P, Value]:
    """Make a function that reads a row say `UnreadableRow` where it cannot."""

    @wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Value:
        try:
            return read(*args, **kwargs)
        except _DAMAGE as cause:
            raise UnreadableRow(f"a row of it cannot be read: {type(cause).__name__}") from cause

    return guarded
