"""A front door with a tiny real gRPC service behind it, and clients to knock with."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.rpc.status_pb2 import Status

from livery.identity import BundleMap, SpiffeId, TrustBundle, X509Svid
from livery.runtime.caller import Caller, caller_of
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.dialer import Dialer
from livery.runtime.front_door import FrontDoor
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import Listen, TcpListen, UnixListen
from tests.fakes.audit import RecordingAudit
from tests.pki import TestCa

SERVER = "/spire/server"
FEW = DoorLimits(connections=64, handshake_timeout=5.0)
PATIENCE = 10.0  # seconds that a test waits for what must happen
FLOODED = 256 * 1024  # bytes of one message of `Flood`


def now() -> datetime:
    return datetime.now(UTC)


def real_ca(trust_domain: str = "example.org", **options: Any) -> TestCa:
    """An authority whose certificates are valid on the real clock, which is OpenSSL's."""
    return TestCa(trust_domain, now=now(), **options)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something has become true; fail after `PATIENCE`."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


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
    flooded: int = 0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    sent: int = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Sum": grpc.stream_unary_rpc_method_handler(self._sum),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Wait": grpc.unary_stream_rpc_method_handler(self._wait),
            "Flood": grpc.unary_stream_rpc_method_handler(self._flood),
            "Sent": grpc.unary_unary_rpc_method_handler(self._sent),
            "Parsed": grpc.unary_unary_rpc_method_handler(self._parsed, Status.FromString),
            "AllParsed": grpc.stream_unary_rpc_method_handler(self._all_parsed, Status.FromString),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))

    async def _echo(self, request: bytes, context: Any) -> bytes:
        self.callers.append(caller_of(context))
        return request

    async def _count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            self.callers.append(caller_of(context))
            yield b"%d" % number

    async def _sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        total = 0
        async for request in requests:
            total += int(request)
        self.callers.append(caller_of(context))
        return b"%d" % total

    async def _chat(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            self.callers.append(caller_of(context))
            await context.write(request)

    async def _wait(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.callers.append(caller_of(context))
        try:
            yield b"waiting"
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def _flood(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(FLOODED)
                self.flooded += FLOODED
        finally:
            self.cancelled.set()

    async def _sent(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """One answer, and a count of those that were sent."""
        self.begun += 1
        try:
            yield request
            self.sent += 1
        finally:
            self.begun -= 1

    async def _parsed(self, request: Status, context: Any) -> bytes:
        return request.message.encode()

    async def _all_parsed(self, requests: AsyncIterator[Status], context: Any) -> bytes:
        return b" ".join([request.message.encode() async for request in requests])

    async def _fail(self, request: bytes, context: Any) -> bytes:
        raise ZeroDivisionError("the secret reason")


def dialer_to(address: str, svid: X509Svid | None, trusted: TrustBundle, **options: Any) -> Dialer:
    """A dialer of ours that expects the server of the trusted domain."""
    return Dialer(
        address=address,
        expected=SpiffeId.of(trusted.trust_domain, SERVER),
        identity=options.pop("identity", lambda: svid),
        bundles=options.pop("bundles", lambda: BundleMap.of(trusted)),
        clock=SystemClock(),
        **options,
    )


@dataclass
class Room:
    """An open door and all that belongs to it."""

    door: FrontDoor
    service: EchoService
    audit: RecordingAudit
    metrics: Metrics
    run_dir: Path
    identity: HeldIdentity | None = None

    @property
    def port(self) -> int:
        return int(self.door.address.rpartition(":")[2])

    @property
    def reasons(self) -> list[object]:
        """Why connections were refused, oldest first."""
        return [event["reason"] for event in self.audit.events]

    def has_let_nobody_in(self) -> bool:
        """No caller exists, and nothing was ever connected to grpc (whose own socket is the first name)."""
        names = [path.name for path in self.door.private_directory.iterdir()]
        return not self.door.connections and not self.service.callers and names == ["1"]

    def dialer(self, svid: X509Svid | None, trusted: TrustBundle, **options: Any) -> Dialer:
        return dialer_to(f"127.0.0.1:{self.port}", svid, trusted, run_dir=self.run_dir, **options)

    @asynccontextmanager
    async def dial(
        self, svid: X509Svid | None, trusted: TrustBundle, **options: Any
    ) -> AsyncIterator[grpc.aio.Channel]:
        """A channel through a dialer of ours."""
        dialer = self.dialer(svid, trusted, **options)
        try:
            yield await dialer.start()
        finally:
            await dialer.close()

    @asynccontextmanager
    async def local(self) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to a door on a unix socket."""
        async with grpc.aio.insecure_channel(self.door.address, options=[("grpc.use_local_subchannel_pool", 1)]) as one:
            yield one


@asynccontextmanager
async def open_door(tmp_path: Path, listen: Listen, **options: Any) -> AsyncIterator[Room]:
    service, audit, metrics = EchoService(), RecordingAudit(), Metrics()
    clock: Clock = options.pop("clock", None) or SystemClock()
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
        yield Room(door, service, audit, metrics, tmp_path / "run", identity)  # type: ignore[arg-type]
    finally:
        await door.stop(0)


@asynccontextmanager
async def tls_door(tmp_path: Path, ca: TestCa, *more: TrustBundle, **options: Any) -> AsyncIterator[Room]:
    identity = options.pop("identity", None) or HeldIdentity(ca.issue(SERVER), ca.bundle(), *more)
    listen = TcpListen("127.0.0.1", 0, identity, options.pop("admits_id", None))
    async with open_door(tmp_path, listen, **options) as room:
        yield room


@asynccontextmanager
async def unix_door(tmp_path: Path, **options: Any) -> AsyncIterator[Room]:
    listen = UnixListen(tmp_path / "door.sock", options.pop("mode", 0o600), options.pop("admits", None))
    async with open_door(tmp_path, listen, **options) as room:
        yield room


async def echo(channel: grpc.aio.Channel, data: bytes = b"hello", timeout: float = PATIENCE) -> bytes:
    reply: bytes = await channel.unary_unary("/test.Echo/Echo")(data, timeout=timeout)
    return reply


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@dataclass(frozen=True)
class Shown:
    """A client certificate as no honest program would hold it: any chain, with the leaf's key."""

    chain: Sequence[x509.Certificate]
    key: Any

    def write_to(self, path: Path) -> Path:
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in self.chain) + pem)
        return path


def hostile_context(folder: Path, shown: Shown | None = None, alpn: Sequence[str] = ("h2",)) -> ssl.SSLContext:
    """A client's context that trusts everybody and shows what it is told to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if shown is not None:
        context.load_cert_chain(shown.write_to(folder / "shown.pem"))
    return context


def _knock(port: int, context: ssl.SSLContext) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as raw, context.wrap_socket(raw) as tls:
        tls.sendall(PREFACE + SETTINGS)
        return tls.recv(65536)


async def knock(port: int, context: ssl.SSLContext) -> bytes | str:
    """Shake hands and greet in HTTP/2; return what grpc answers, b"" for a goodbye, or the words of an alert."""
    try:
        return await asyncio.to_thread(_knock, port, context)
    except ssl.SSLError as error:
        return str(error.reason)


WIDEST = 2**31 - 1
RESET = b"\0\0\4\3\0\0\0\0\1\0\0\0\x08"  # RFC 9113 6.4: RST_STREAM of stream 1, CANCEL


def http2_call(path: str, message: bytes, window: int = WIDEST) -> bytes:
    """A client's bytes for one call on stream 1, with flow control opened as far as it goes, or as it is told."""
    settings = struct.pack(">HL", 4, window)  # RFC 9113 6.5.2: SETTINGS_INITIAL_WINDOW_SIZE
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # RFC 7541 6.2.2: literal fields without indexing, new names.
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    return (
        PREFACE
        + _frame(4, 0, 0, settings)
        + _frame(8, 0, 0, struct.pack(">L", WIDEST - 65535))
        + _frame(1, 4, 1, block)
        + _frame(0, 1, 1, b"\0" + struct.pack(">L", len(message)) + message)
    )


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
