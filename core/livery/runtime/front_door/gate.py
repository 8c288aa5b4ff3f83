"""What the arrivals at one front door share: the seats, the table, and the way through to grpc.

Owns: letting an authenticated connection in (table first, then the splice), how much a stranger may send over it, and
closing it again. Does not own: who may come in (`arrivals`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from livery.runtime.caller import Caller
from livery.runtime.clock import Clock
from livery.runtime.front_door.connection import Connection, ConnectionTable
from livery.runtime.logging import get_logger
from livery.runtime.transport.limits import Admission, DoorLimits, Seat
from livery.runtime.transport.private_directory import PrivateDirectory
from livery.runtime.transport.refusals import Refusals
from livery.runtime.transport.splice import Census, End

_TRIES = 8  # to reach grpc's private socket while its queue is full: 5 ms, doubled each time


class Gate:
    """The inside of one front door."""

    def __init__(self, limits: DoorLimits, clock: Clock, directory: PrivateDirectory, refusals: Refusals) -> None:
        self.limits = limits
        self.clock = clock
        self.refusals = refusals
        self.admission = Admission(limits)
        self.table = ConnectionTable()
        self.census = Census()
        self.server_path = directory.new_name()
        self._directory = directory
        self._tasks: set[asyncio.Task[None]] = set()

    def new_name(self) -> str:
        """Return the name of a connection to be."""
        return str(self._directory.new_name())

    def let_in(self, outer: End, caller: Caller, seat: Seat) -> Connection:
        """Give a connection its caller and splice it to grpc."""
        connection = Connection(caller, outer, seat, self.clock.monotonic())
        self.table.add(connection)
        task = asyncio.get_running_loop().create_task(self._splice(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return connection

    async def _splice(self, connection: Connection) -> None:
        if connection.is_lost:
            return
        inner = self._inner_end(connection)
        try:
            await connect_private(Path(connection.caller.connection), self.server_path, lambda: inner)
        except OSError as error:
            get_logger("livery.door").error("a connection could not be passed on to grpc", error=str(error))
            connection.outer.abort()
            return
        if connection.is_lost:
            inner.abort()
            return
        inner.join(connection.outer)
        connection.outer.join(inner)
        inner.flow()
        connection.outer.flow()

    def _inner_end(self, connection: Connection) -> End:
        if not connection.caller.is_anonymous:
            return End(self.limits.buffered, self.census)

        def exceeded() -> None:
            self.refusals.count("anonymous_bytes")
            connection.end()

        return _BoundedEnd(self.limits.buffered, self.census, self.limits.anonymous_bytes, exceeded)

    async def close(self) -> None:
        """Close every connection."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.census.close()


class _BoundedEnd(End):
    """An end that sends no more than so many bytes in all."""

    def __init__(self, buffered: int, watcher: Census, most: int, exceeded: Callable[[], None]) -> None:
        super().__init__(buffered, watcher)
        self._left = most
        self._exceeded = exceeded

    def send(self, data: bytes) -> None:
        """Write to the peer, unless it was enough."""
        self._left -= len(data)
        if self._left < 0:
            self._exceeded()
        else:
            super().send(data)


async def connect_private(name: Path, server: Path, protocol: Callable[[], End]) -> None:
    """Connect to a private socket from a socket bound to `name`, by which the other side knows us."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind(str(name))
        await _connect(sock, str(server))
        await asyncio.get_running_loop().create_unix_connection(protocol, sock=sock)
    except BaseException:
        sock.close()
        raise


async def _connect(sock: socket.socket, path: str) -> None:
    # Not loop.sock_connect: a full queue is EAGAIN here (unix(7)), which it takes for a connection under way.
    for attempt in range(_TRIES):
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(0.005 * 2**attempt)
        else:
            return
    sock.connect(path)
