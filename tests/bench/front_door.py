"""The front door beside grpcio alone: what authenticating first and then splicing costs.

Owns: a server process with four ways in to one trivial method (a unix socket, the same behind a door, a door with mTLS,
grpcio's own mTLS), the latency of calls by each of them, and the memory that an idle connection holds. The client is
another process; both run on uvloop. `python -m tests.bench.front_door` shows the figures alone.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import grpc
import grpc.aio
import psutil
import structlog
import uvloop

from livery.identity import BundleMap, SpiffeId, TrustBundle, TrustDomain, X509Svid
from livery.runtime.clock import SystemClock
from livery.runtime.dialer import Dialer
from livery.runtime.transport.limits import DoorLimits
from tests.bench.effort import QUICK, Effort
from tests.bench.results import Result, measured
from tests.integration.doors import PREFACE, SERVER, SETTINGS, EchoService, Shown, hostile_context, real_ca
from tests.integration.doors import tls_door as open_tls_door
from tests.integration.doors import unix_door as open_unix_door

_MANY = DoorLimits(connections=4096, per_identity=4096, per_uid=4096)
_CALLS = 10  # for each request of the effort
_NAME = "localhost"  # grpcio's own TLS knows names only


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways in, and what a client needs for them."""

    folder: Path
    server: int  # the process's number
    bare_unix: str
    door_unix: str
    door_tls: str
    bare_tls: str

    @property
    def svid(self) -> X509Svid:
        """Who the client is."""
        return X509Svid.from_pem((self.folder / "client.pem").read_bytes(), (self.folder / "client.key").read_bytes())

    @property
    def bundle(self) -> TrustBundle:
        """Whom it trusts."""
        return TrustBundle.from_pem(TrustDomain("example.org"), (self.folder / "ca.pem").read_bytes())


async def front_door(effort: Effort) -> list[Result]:
    """Latencies, each beside grpcio's own, and memory per idle connection."""
    with tempfile.TemporaryDirectory(prefix="lb") as folder, _server(Path(folder)) as process:
        ways = Ways(Path(folder), process.pid, **json.loads(await asyncio.to_thread(process.stdout.readline)))
        result = await _latencies(ways, effort)
        unix = result["unary_over_unix_socket_p50"]
        tls = result["unary_over_mtls_p50"]
        return [
            unix.beside("unary_behind_the_door_over_unix_socket_p50", _named(result["bare_unix"], "unix socket")),
            tls.beside("unary_behind_the_door_over_mtls_p50", _named(result["bare_tls"], "mTLS")),
            await _memory("idle_unix_connection_memory", ways, effort, _open_unix),
            await _memory("idle_mtls_connection_memory", ways, effort, _open_tls),
        ]


def _named(bare: Result, way: str) -> Result:
    return replace(bare, name=f"grpcio alone, {way}")


async def _latencies(ways: Ways, effort: Effort) -> dict[str, Result]:
    """Turn by turn, so that whatever else the machine does falls on all of them alike."""
    found: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        channels = {
            "bare_unix": await stack.enter_async_context(grpc.aio.insecure_channel(ways.bare_unix)),
            "unary_over_unix_socket_p50": await stack.enter_async_context(grpc.aio.insecure_channel(ways.door_unix)),
            "bare_tls": await stack.enter_async_context(_grpcio_tls(ways)),
            "unary_over_mtls_p50": await stack.enter_async_context(_dialed(ways)),
        }
        for channel in channels.values():
            await _each(channel, 50)
        for _ in range(effort.repeats):
            for name, channel in channels.items():
                found.setdefault(name, []).append(median(await _each(channel, effort.requests * _CALLS)) * 1e6)
    return {name: measured(name, "us", repeats) for name, repeats in found.items()}


async def _each(channel: grpc.aio.Channel, count: int) -> list[float]:
    call, took = channel.unary_unary("/test.Echo/Echo"), []
    for _ in range(count):
        began = time.perf_counter()
        await call(b"x" * 50)
        took.append(time.perf_counter() - began)
    return took


def _grpcio_tls(ways: Ways) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        (ways.folder / "ca.pem").read_bytes(), ways.svid.key_pem(), ways.svid.chain_pem()
    )
    return grpc.aio.secure_channel(ways.bare_tls, credentials, [("grpc.ssl_target_name_override", _NAME)])


@asynccontextmanager
async def _dialed(ways: Ways) -> AsyncIterator[grpc.aio.Channel]:
    svid, bundles = ways.svid, BundleMap.of(ways.bundle)
    expected = SpiffeId.of(ways.bundle.trust_domain, SERVER)
    dialer = Dialer(
        address=ways.door_tls,
        expected=expected,
        identity=lambda: svid,
        bundles=lambda: bundles,
        run_dir=ways.folder / "client",
        clock=SystemClock(),
    )
    try:
        yield await dialer.start()
    finally:
        await dialer.close()


async def _memory(
    name: str, ways: Ways, effort: Effort, opened: Callable[[Ways, ExitStack], Awaitable[object]]
) -> Result:
    process, repeats = psutil.Process(ways.server), []
    for _ in range(2):  # the first ones also pay for what grpc never gives back
        with ExitStack() as stack:
            before = process.memory_info().rss
            for _ in range(effort.streams):
                await opened(ways, stack)
            repeats.append((process.memory_info().rss - before) / effort.streams / 1024)
        await asyncio.sleep(1.0)
    return measured(name, "KiB", repeats[:1])


async def _open_unix(ways: Ways, stack: ExitStack) -> None:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.connect(ways.door_unix.removeprefix("unix:"))
    await asyncio.to_thread(_greet, sock)


async def _open_tls(ways: Ways, stack: ExitStack) -> None:
    host, _, port = ways.door_tls.rpartition(":")
    raw = stack.enter_context(socket.create_connection((host, int(port))))
    context = hostile_context(ways.folder, Shown(ways.svid.chain, ways.svid.private_key))
    sock = stack.enter_context(await asyncio.to_thread(context.wrap_socket, raw))
    await asyncio.to_thread(_greet, sock)


def _greet(sock: socket.socket) -> None:
    sock.sendall(PREFACE + SETTINGS)
    sock.recv(9)


def _server(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.bench.front_door", "serve", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def _serve(folder: Path) -> None:
    ca = real_ca()
    client, server = ca.issue("/client", dns_names=[_NAME]), ca.issue(SERVER, dns_names=[_NAME])
    (folder / "client.pem").write_bytes(client.chain_pem())
    (folder / "client.key").write_bytes(client.key_pem())
    (folder / "ca.pem").write_bytes(ca.bundle().to_pem())
    bare = grpc.aio.server()
    _Silent().add_to(bare)
    bare.add_insecure_port(f"unix:{folder}/bare.sock")
    pairs, roots = [(server.key_pem(), server.chain_pem())], ca.bundle().to_pem()
    port = bare.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pairs, roots, require_client_auth=True))
    await bare.start()
    async with open_unix_door(folder, limits=_MANY) as unix, open_tls_door(folder, ca, limits=_MANY) as tls:
        ways = {
            "bare_unix": f"unix:{folder}/bare.sock",
            "door_unix": unix.door.address,
            "door_tls": tls.door.address,
            "bare_tls": f"127.0.0.1:{port}",
        }
        print(json.dumps(ways), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await bare.stop(0)


class _Silent(EchoService):
    """The same method where there is no door, and so no caller."""

    async def _echo(self, request: bytes, context: object) -> bytes:
        return request


def main() -> None:
    """Serve for another process, or measure and show."""
    if sys.argv[1:2] == ["serve"]:
        structlog.configure(processors=[_drop])
        uvloop.run(_serve(Path(sys.argv[2])))
        return
    for result in uvloop.run(front_door(QUICK if "--quick" in sys.argv else Effort(5, 4.0, 3, 60, 1000, 1))):
        print(result)


def _drop(_logger: object, _method: str, _event: object) -> str:
    raise structlog.DropEvent


if __name__ == "__main__":
    main()
