"""One call through a front door: who makes it, what it is called, and what its log line says.

Owns: `Call` and the hooks that doors hang in front of their methods (`Guard`). Does not own: connections.

Invariant: a method runs only for a caller whose identity is current at the call's start. A guard may see one whose is
not, so that it can say no in the words of its protocol; what it lets through is refused right after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from livery.runtime.caller import Caller


@dataclass(eq=False, slots=True)
class Call:
    """One call: `method` is "/package.Service/Method"; `notes` go into the call's log line (never secrets)."""

    method: str
    caller: Caller
    request_id: str
    notes: dict[str, object] = field(default_factory=dict)


Guard = Callable[[Call], Awaitable[None]]
"""Asked before a method runs, in order; refuses by raising a `LiveryError`."""
