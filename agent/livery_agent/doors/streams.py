"""How many streams are open, and for whom: the bound that keeps one user from taking everybody's places.

Owns: counting. Does not own: connections (the front door bounds those) or what flows in a stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from livery.errors import Kind
from livery_agent.errors import AgentError


class TooManyStreams(AgentError):
    """No place is free. Unavailable rather than exhausted: SPIFFE Workload Endpoint 6 says so for overload."""

    code = "too_many_streams"
    kind = Kind.UNAVAILABLE


@dataclass(slots=True)
class Streams:
    """The places for streams: so many in all, so many for one user."""

    total: int
    per_user: int
    _open: Counter[int] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def place(self, uid: int) -> Iterator[None]:
        """One place for this user, for the length of a stream; raises `TooManyStreams`."""
        if len(self) >= self.total:
            raise TooManyStreams("too many streams are open", why=f"the limit is {self.total}")
        if self._open[uid] >= self.per_user:
            raise TooManyStreams(f"user {uid} has too many streams open", why=f"the limit is {self.per_user}")
        self._open[uid] += 1
        try:
            yield
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]
