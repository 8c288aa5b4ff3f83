"""Methods of a service that this authority does not offer: they say so, after the same check of rights as the others.

Owns: the answer. (The stubs' own answer to a method nobody wrote is an exception, and would be logged as a bug.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from livery_ca.doors.refusals import Unimplemented

Servicer = TypeVar("Servicer", bound=type)


def unoffered(names: str, *, text: str = "not offered by this server") -> Callable[[Servicer], Servicer]:
    """Let the methods of these names (parted by spaces) of a servicer answer Unimplemented with this text."""

    def complete(servicer: Servicer) -> Servicer:
        for name in names.split():
            setattr(servicer, name, _refusing(text))
        return servicer

    return complete


def _refusing(text: str) -> Callable[..., Any]:
    async def refuse(_self: object, _request: object, _context: object) -> None:
        raise Unimplemented(text)

    return refuse
