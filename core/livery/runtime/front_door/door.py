"""The front door of a gRPC server: connections are authenticated first and then spliced to grpcio.

Owns: one listening address, the grpc.aio server behind it, and their start and stop. Does not own: authentication of a
connection (`arrivals`), what surrounds a call (`call_interceptor`), what ends a connection (`upkeep`), nor what a
caller may do (services and their guards).

Invariants: not one byte of a connection reaches gRPC before its `Caller` exists; a call is answered only on a
connection that is in the table; what was refused has an audit record that says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from urllib.parse import quote

import grpc
import grpc.aio

from livery.runtime.audit import Audit
from livery.runtime.clock import Clock
from livery.runtime.completion import whole
from livery.runtime.descriptors import require_descriptors
from livery.runtime.front_door.arrivals import TlsArrival, UnixArrival
from livery.runtime.front_door.call_interceptor import CallInterceptor
from livery.runtime.front_door.calls import Guard
from livery.runtime.front_door.gate import Gate
from livery.runtime.front_door.upkeep import Upkeep
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import BACKLOG, Bound, Listen, TcpListen, bind
from livery.runtime.transport.private_directory import PrivateDirectory
from livery.runtime.transport.refusals import Refusals
from livery.runtime.transport.splice import End, close_listener, serving
from livery.runtime.transport.tls_contexts import CurrentServerContext
from livery.runtime.transport.tls_end import TlsEnd

_FOR_EVER = 2**31 - 1


def server_options(listen: Listen, limits: DoorLimits) -> list[tuple[str, int]]:
    """Return grpc's options behind a door.

    Of keepalive's settings it is `http2.ping_timeout_ms` that closes the connection of a mute peer; without it that
    takes a minute, whatever the others say. Connections that are too old end with their last call, however long that
    takes: so load spreads over replicas again.
    """
    options = [
        ("grpc.max_receive_message_length", limits.message_size),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.keepalive_time_ms", _ms(limits.mute)),
        ("grpc.keepalive_timeout_ms", _ms(limits.mute_timeout)),
        ("grpc.http2.ping_timeout_ms", _ms(limits.mute_timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.so_reuseport", 0),
    ]
    if isinstance(listen, TcpListen):
        options += [
            ("grpc.max_connection_idle_ms", _ms(limits.connection_age)),
            ("grpc.max_connection_age_ms", _ms(limits.connection_age)),
            ("grpc.max_connection_age_grace_ms", _FOR_EVER),
        ]
    return options


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


@dataclass(eq=False)
class FrontDoor:
    """One listening address.

    `services` add servicers to the server; `guards` are asked before each method runs; `name` tells this door from
    others of the process in the audit trail and the metrics ("tcp" or "unix" if not given).
    """

    listen: Listen
    _: KW_ONLY
    services: Sequence[Callable[[grpc.aio.Server], None]]
    run_dir: Path
    clock: Clock
    audit: Audit
    metrics: Metrics
    limits: DoorLimits = field(default_factory=DoorLimits)
    guards: Sequence[Guard] = ()
    name: str = ""
    _open: _Open | None = field(default=None, init=False, repr=False)

    async def start(self) -> None:
        """Listen. Raises `CannotListen`, `NoPrivateDirectory`, a `FileError` or `TooFewDescriptors`."""
        require_descriptors(self.limits.descriptors)
        directory = PrivateDirectory.create(self.run_dir)
        try:
            self._open = await self._start_in(directory)
        except BaseException:
            directory.remove()
            raise

    async def stop(self, grace: float) -> None:
        """Take no new connections, let calls end for `grace` seconds, close what is left, also if cancelled meanwhile.

        Without effect if closed.
        """
        opened, self._open = self._open, None
        if opened is not None:
            await whole(opened.close(grace))

    async def recheck(self) -> None:
        """Close every connection whose chain no longer verifies against the bundles of now, streams included.

        The door notices changed bundles by itself within a second or so; this is for who knows already.
        """
        await self._opened.upkeep.recheck()

    @property
    def address(self) -> str:
        """Where clients connect: "127.0.0.1:41021" or "unix:/path"."""
        return self._opened.bound.address

    @property
    def private_directory(self) -> Path:
        """Where the private sockets are."""
        return self._opened.directory.path

    @property
    def connections(self) -> int:
        """How many connections are let in at the moment."""
        return len(self._opened.gate.table)

    @property
    def _opened(self) -> _Open:
        if self._open is None:
            raise RuntimeError("the door is not open")
        return self._open

    async def _start_in(self, directory: PrivateDirectory) -> _Open:
        async with AsyncExitStack() as undo:
            bound = bind(self.listen)
            undo.callback(bound.release)
            door = self.name or ("tcp" if isinstance(self.listen, TcpListen) else "unix")
            gate = Gate(self.limits, self.clock, directory, Refusals(door, self.audit, self.metrics, self.clock))
            gauge = self.metrics.gauge("door_connections", "Connections let in by a door.", ("door",))
            gauge.labels(door).set_function(gate.table.__len__)
            protocol = self._factory(gate)
            server = self._grpc(gate)
            undo.push_async_callback(server.stop, None)
            await whole(server.start())
            listener = await serving(await _listener(bound, protocol))
            undo.pop_all()
        upkeep = Upkeep(gate, self.listen)
        sweeping = asyncio.create_task(upkeep.run())
        return _Open(bound, directory, gate, server, listener, upkeep, sweeping)

    def _grpc(self, gate: Gate) -> grpc.aio.Server:
        interceptor = CallInterceptor(gate.table, self.guards, self.clock, self.metrics)
        server = grpc.aio.server(interceptors=(interceptor,), options=server_options(self.listen, self.limits))
        for add in self.services:
            add(server)
        server.add_insecure_port(f"unix:{quote(str(gate.server_path))}")
        return server

    def _factory(self, gate: Gate) -> Callable[[], End]:
        listen, buffered = self.listen, self.limits.buffered
        if not isinstance(listen, TcpListen):
            return lambda: End(buffered, UnixArrival(gate, listen))
        context = CurrentServerContext(listen.identity)
        context.get()  # an unusable identity shows now, not at the first connection
        return lambda: TlsEnd(buffered, TlsArrival(gate, listen, context))


async def _listener(bound: Bound, protocol: Callable[[], End]) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if bound.path is None:
        return await loop.create_server(protocol, sock=bound.sock, backlog=BACKLOG, start_serving=False)
    return await loop.create_unix_server(protocol, sock=bound.sock, backlog=BACKLOG, start_serving=False)


@dataclass(frozen=True, slots=True)
class _Open:
    """What is there while the door is open. The listener is held: uvloop closes one that nobody refers to."""

    bound: Bound
    directory: PrivateDirectory
    gate: Gate
    server: grpc.aio.Server
    listener: asyncio.Server
    upkeep: Upkeep
    sweeping: asyncio.Task[None]

    async def close(self, grace: float) -> None:
        """Close everything, from the outside in."""
        self.bound.withdraw()
        await close_listener(self.listener)
        self.bound.release()
        self.sweeping.cancel()
        await asyncio.gather(self.sweeping, return_exceptions=True)
        await self.server.stop(grace)
        await self.gate.close()
        self.directory.remove()
