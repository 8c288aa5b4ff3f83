"""A front door with a tiny real gRPC service behind it, and clients to knock with."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from livery.identity import BundleMap, SpiffeId, TrustBundle, X509Svid
from livery.runtime.caller import Caller, caller_of
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.dialer import Dialer
from livery.runtime.front_door import FrontDoor
from livery.runtime.limits import DoorLimits
from livery.runtime.listen import Listen, TcpListen, UnixListen
from livery.runtime.metrics import Metrics
from livery.runtime.tls_contexts import client_context
from tests.fakes.audit import RecordingAudit
from tests.pki import TestCa

SERVER = "/spire/server"
FEW = DoorLimits(connections=64, handshake_timeout=5.0)


def now() -> datetime:
    return datetime.now(UTC)


def real_ca(trust_domain: str = "example.org", **options: Any) -> TestCa:
    """An authority whose certificates are valid on the real clock, which is OpenSSL's."""
    return TestCa(trust_domain, now=now(), **options)


class HeldIdentity:
    """A `DoorIdentity` that a test can change."""

    def __init__(self, svid: X509Svid, *bundles: TrustBundle) -> None:
        self.held = svid
        self.known = BundleMap.of(*bundles)

    def svid(self) -> X509Svid:
        return self.held

    def bundles(self) -> BundleMap:
        return self.known


@dataclass
class EchoService:
    """Answers with what it got, and remembers who asked."""

    callers: list[Caller] = field(default_factory=list)

    def add_to(self, server: grpc.aio.Server) -> None:
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Wait": grpc.unary_stream_rpc_method_handler(self._wait),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))

    async def _echo(self, request: bytes, context: Any) -> bytes:
        self.callers.append(caller_of(context))
        return request

    async def _count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            self.callers.append(caller_of(context))
            yield b"%d" % number

    async def _chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.callers.append(caller_of(context))
            yield request

    async def _wait(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.callers.append(caller_of(context))
        yield b"waiting"
        await asyncio.Event().wait()

    async def _fail(self, request: bytes, context: Any) -> bytes:
        raise ZeroDivisionError("the secret reason")


@dataclass
class Room:
    """An open door and all that belongs to it."""

    door: FrontDoor
    service: EchoService
    audit: RecordingAudit
    metrics: Metrics
    run_dir: Path
    clock: Clock
    identity: HeldIdentity | None = None

    @property
    def port(self) -> int:
        return int(self.door.address.rpartition(":")[2])

    def reasons(self) -> list[object]:
        return [event["reason"] for event in self.audit.events]

    @asynccontextmanager
    async def dial(
        self, svid: X509Svid | None, trusted: TrustBundle, **options: Any
    ) -> AsyncIterator[grpc.aio.Channel]:
        """A channel through a dialer of ours."""
        dialer = Dialer(
            address=f"127.0.0.1:{self.port}",
            expected=options.get("expected", SpiffeId.of(trusted.trust_domain, SERVER)),
            identity=lambda: svid,
            bundles=lambda: BundleMap.of(trusted),
            run_dir=self.run_dir,
            clock=options.get("clock", SystemClock()),
        )
        try:
            yield await dialer.start()
        finally:
            await dialer.close()


@asynccontextmanager
async def open_door(tmp_path: Path, listen: Listen, **options: Any) -> AsyncIterator[Room]:
    service, audit, metrics = EchoService(), RecordingAudit(), Metrics()
    clock = options.pop("clock", None) or SystemClock()
    door = FrontDoor(
        listen,
        services=[service.add_to],
        run_dir=tmp_path / "run",
        clock=clock,
        audit=audit,
        metrics=metrics,
        limits=options.pop("limits", FEW),
        **options,
    )
    await door.start()
    identity = listen.identity if isinstance(listen, TcpListen) else None
    try:
        yield Room(door, service, audit, metrics, tmp_path / "run", clock, identity)  # type: ignore[arg-type]
    finally:
        await door.stop(0)


@asynccontextmanager
async def tls_door(tmp_path: Path, ca: TestCa, *more: TrustBundle, **options: Any) -> AsyncIterator[Room]:
    identity = HeldIdentity(ca.issue(SERVER), ca.bundle(), *more)
    listen = TcpListen("127.0.0.1", 0, identity, options.pop("admits_id", None))
    async with open_door(tmp_path, listen, **options) as room:
        yield room


@asynccontextmanager
async def unix_door(tmp_path: Path, **options: Any) -> AsyncIterator[Room]:
    listen = UnixListen(tmp_path / "door.sock", options.pop("mode", 0o600), options.pop("admits", None))
    async with open_door(tmp_path, listen, **options) as room:
        yield room


async def echo(channel: grpc.aio.Channel, data: bytes = b"hello", timeout: float = 10.0) -> bytes:
    reply: bytes = await channel.unary_unary("/test.Echo/Echo")(data, timeout=timeout)
    return reply
