"""An ASGI application served on uvicorn, to callers whose identity is known.

`HttpServer` listens on TCP with mutual TLS, or on a unix socket, and puts the peer of each request where `peer_of`
finds it. A change of the server's SVID or bundles needs no restart: the next handshake uses the new ones, and
connections whose chain no longer verifies are refused at their next request (and closed by `recheck`).

Owns: one listener, its limits, its connections and its uvicorn. Does not own: signals, the event loop, and what a peer
may do; `livery.runtime.http.gate` says what an application is shown.

Invariants: no request of an unidentified connection reaches the application (over TLS, showing no certificate is an
identity of its own: `HttpPeer.identity` is None); every refused connection is recorded with its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections.abc import Generator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self

import uvicorn

from livery.errors import Kind, LiveryError
from livery.runtime.audit import Audit
from livery.runtime.clock import Clock
from livery.runtime.http.connection import Connection, LocalConnection, TlsConnection
from livery.runtime.http.gate import Application, HttpPeer
from livery.runtime.http.protocol import HttpBounds, HttpProtocol
from livery.runtime.http.reception import HttpReception
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import Bound, Listen, TcpListen, bind


class ApplicationFailed(LiveryError):
    """The application did not start."""

    code: ClassVar[str] = "application_failed"
    kind: ClassVar[Kind] = Kind.INTERNAL


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How a server behaves: bounds per connection and for all of them, and whether each request gets a log line."""

    bounds: HttpBounds = field(default_factory=HttpBounds)
    limits: DoorLimits = field(default_factory=lambda: DoorLimits(per_identity=512))
    demand_client_certificate: bool = False
    log_requests: bool = True


class HttpServer:
    """One ASGI application on one address.

    `async with HttpServer(app, listen, ...) as server: ...` serves until the block ends; or `start` and `stop`.
    """

    def __init__(
        self,
        app: Application,
        listen: Listen,
        *,
        clock: Clock,
        audit: Audit,
        metrics: Metrics,
        options: HttpOptions | None = None,
    ) -> None:
        self._listen = listen
        self._options = options or HttpOptions()
        config = _config(app)
        self._uvicorn = _Uvicorn(config)
        self._reception = HttpReception(listen, self._options, clock, audit, metrics)
        self._connection = TlsConnection if isinstance(listen, TcpListen) else LocalConnection
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._bound: Bound | None = None
        self._serving: asyncio.Task[None] | None = None
        # uvicorn makes a protocol per accepted connection by calling this.
        config.http = self._make_connection  # type: ignore[assignment]  # declared as a class, called as a factory

    @property
    def address(self) -> str:
        """Where clients connect: "127.0.0.1:41021" or "unix:/path"; empty before `start`."""
        return self._bound.address if self._bound is not None else ""

    async def start(self) -> None:
        """Listen, and let the application start. Raises `CannotListen` or `ApplicationFailed`."""
        self._bound = bind(self._listen)
        self._serving = asyncio.create_task(self._uvicorn.serve_on(self._bound))
        waiting = asyncio.create_task(self._uvicorn.is_ready.wait())
        try:
            await asyncio.wait({self._serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._give_up()
            raise
        finally:
            waiting.cancel()
        if self._serving.done():
            self._bound.release()
            await self._serving
            raise ApplicationFailed("the application did not start", why="its lifespan ended at once")

    async def _give_up(self) -> None:
        """Nobody waits for the start any longer: leave nothing behind."""
        if self._uvicorn.started or self._serving is None or self._bound is None:
            await self.stop(0)
            return
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        # asyncio waits a turn with a listener that it has started, and nobody has that yet who could close it.
        asyncio.get_running_loop().remove_reader(self._bound.sock.fileno())
        self._bound.release()
        self._serving = None

    async def stop(self, grace: float = 5.0) -> None:
        """Take no new connections, let requests end for `grace` seconds, and close what is left."""
        if self._serving is None or self._bound is None:
            return
        self._bound.withdraw()
        self._uvicorn.stop(grace)
        await self._serving
        for connection in list(self._connections):  # uvicorn knows only of those whose peer is known
            connection.abort()
        self._bound.release()
        self._serving = None

    async def recheck(self) -> None:
        """Close every connection whose chain no longer verifies against the bundles of now."""
        for connection in list(self._uvicorn.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.recheck()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _make_connection(
        self, *, config: Any, server_state: Any, app_state: Any, _loop: Any = None
    ) -> asyncio.Protocol:
        def protocol(peer: HttpPeer) -> HttpProtocol:
            return HttpProtocol(config, (server_state, app_state), peer, self._reception.parts())

        connection = self._connection(self._reception, protocol)
        self._connections.add(connection)
        return connection


def _config(app: Application) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        loop="none",
        ws="none",  # an upgraded connection gets a fresh protocol, which would know no peer
        lifespan="auto",
        log_config=None,
        access_log=False,  # the gate writes the one line of a request
        proxy_headers=False,  # otherwise a local peer could choose its own address
        server_header=False,
        workers=1,
        reset_contextvars=True,
    )


class _Uvicorn(uvicorn.Server):
    """uvicorn without its hands on the process: signals are the role's, and a failed start is an error, not an exit."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_ready = asyncio.Event()
        self._is_ending = asyncio.Event()

    async def serve_on(self, bound: Bound) -> None:
        """Serve until told to stop."""
        try:
            await self.serve(sockets=[bound.sock])
        except SystemExit as cause:
            raise ApplicationFailed("the application did not start", why="see the log for its own words") from cause

    async def startup(self, sockets: Any = None) -> None:
        """Tell who waits."""
        await super().startup(sockets)
        self.is_ready.set()

    def stop(self, grace: float) -> None:
        """Ask the server to end, and give requests `grace` seconds (rounded up)."""
        self.config.timeout_graceful_shutdown = math.ceil(grace)
        self.should_exit = True
        self._is_ending.set()

    async def main_loop(self) -> None:
        """Renew the `date` header once a second, until told to end; uvicorn's own wakes up ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), 1.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield
