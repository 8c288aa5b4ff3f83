"""How many calls are open, and for whom: the bound that keeps one user from taking everybody's places and our memory.

Owns: counting, and who a call is counted for. Does not own: connections (the front door bounds those) or what flows in
a call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from livery.errors import Kind
from livery.runtime.caller import HasPeer, PeerProcess, caller_of
from livery_agent.errors import AgentError, WorkloadUnattested


class TooManyCalls(AgentError):
    """No place is free. Unavailable rather than exhausted: SPIFFE Workload Endpoint 6 says so for overload."""

    code = "too_many_calls"
    kind = Kind.UNAVAILABLE


@dataclass(slots=True)
class Places:
    """The places for calls of one kind (`what`, in the plural): so many in all, so many for one user."""

    what: str
    total: int
    per_user: int
    _taken: Counter[int] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self._taken.total()

    @contextmanager
    def place(self, context: HasPeer) -> Iterator[PeerProcess]:
        """One place for the user who calls, for the length of the call; raises `TooManyCalls`."""
        process = caller_of(context).process
        if process is None:
            raise WorkloadUnattested("workload attestation failed", why="the call did not come over a unix socket")
        with self._taken_by(process.uid):
            yield process

    @contextmanager
    def _taken_by(self, uid: int) -> Iterator[None]:
        if len(self) >= self.total:
            raise TooManyCalls(f"too many {self.what} are open", why=f"the limit is {self.total}")
        if self._taken[uid] >= self.per_user:
            raise TooManyCalls(f"user {uid} has too many {self.what} open", why=f"the limit is {self.per_user}")
        self._taken[uid] += 1
        try:
            yield
        finally:
            self._taken[uid] -= 1
            if not self._taken[uid]:
                del self._taken[uid]
