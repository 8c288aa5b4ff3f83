"""The connections of a front door, each with its caller: the table by which a call finds out who makes it.

Owns: `Connection` (one authenticated connection, its calls and what it holds) and `ConnectionTable`. Does not own:
authentication, or when a connection has to end.

Invariants: a connection is in the table from before its first byte reaches gRPC until it is lost; its private socket
name leaves the disk with it; its pidfd stays open while a call still runs, so that the number cannot mean another file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from livery.runtime.caller import Caller, HasPeer, NoCaller, peer_connection
from livery.runtime.clock import Clock
from livery.runtime.transport.limits import Seat
from livery.runtime.transport.splice import End
from livery.runtime.transport.tls_end import TlsEnd

_YOUNG = 5.0  # seconds
_TURNING = 5.0  # seconds that a peer has to notice that it should turn to a new connection


@dataclass(eq=False, slots=True)
class Connection:
    """One authenticated connection. `opened` and `used` are seconds of the clock's stopwatch."""

    caller: Caller
    outer: End
    seat: Seat
    opened: float
    used: float = 0.0
    calls: int = 0
    turns_at: datetime | None = None  # from then on its calls should go to a new connection
    turned: float | None = None  # when the peer was asked to
    is_ending: bool = False
    is_lost: bool = False

    def __post_init__(self) -> None:
        self.used = self.opened

    def should_turn(self, now: datetime, stopwatch: float) -> bool:
        """Whether to ask the peer now for a new connection.

        Not a connection so young that it may not have been used yet: grpc's client loses calls that wait for one which
        goes away at once. Nor one whose identity has expired: its peer would only come back in vain.
        """
        if self.turns_at is None or self.turned is not None or stopwatch - self.opened < _YOUNG:
            return False
        ends = self.caller.expires_at
        return self.turns_at <= now and (ends is None or now <= ends)

    def is_spent(self, stopwatch: float) -> bool:
        """Whether the peer was asked long enough ago, and has no call left here. Not every client closes by itself."""
        return self.turned is not None and not self.calls and stopwatch - self.turned > _TURNING

    @contextmanager
    def serving(self, clock: Clock) -> Iterator[None]:
        """Count a call while it runs."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1
            self.used = clock.monotonic()
            self._release()

    def turn_away(self, stopwatch: float) -> None:
        """Ask the peer to make its next calls on a new connection."""
        self.turned = stopwatch
        if isinstance(self.outer, TlsEnd):
            self.outer.go_away()

    def end(self) -> None:
        """Close it, calls under way included."""
        self.is_ending = True
        self.outer.close()

    def lose(self) -> None:
        """The connection is gone: give back what it holds."""
        if self.is_lost:
            return
        self.is_lost = True
        self.seat.leave()
        Path(self.caller.connection).unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self.is_lost and not self.calls and self.caller.process is not None:
            os.close(self.caller.process.pidfd)


class ConnectionTable:
    """The connections that are open, by the name that grpc sees."""

    def __init__(self) -> None:
        self._open: dict[str, Connection] = {}

    def add(self, connection: Connection) -> None:
        """Let calls on this connection find their caller."""
        self._open[connection.caller.connection] = connection

    def lose(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        if self._open.pop(connection.caller.connection, None) is not None:
            connection.lose()

    def find(self, context: HasPeer) -> Connection:
        """Return the connection a call came in on; raises `NoCaller`."""
        found = self._open.get(peer_connection(context))
        if found is None:
            raise NoCaller("this call has no caller", why="its connection has gone, or was never let in")
        if found.is_ending:
            raise NoCaller("this call has no caller", why="its connection is being closed")
        return found

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)
