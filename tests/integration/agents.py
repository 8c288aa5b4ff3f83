"""An agent with its CA: the real agent over real sockets and TLS, and the fake CA behind a real front door."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx2

from livery.identity import BundleMap, Selector, SpiffeId, X509Svid
from livery.runtime.caller import caller_of
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.front_door import FrontDoor
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import TcpListen
from livery.wire import workload_api
from livery_agent.config import AgentConfig
from livery_agent.identities.entry import Entry
from livery_agent.main import serve
from tests.fakes.audit import RecordingAudit
from tests.fakes.ca import FakeCa

HEADER = (("workload.spiffe.io", "true"),)
PATIENCE = 60.0  # seconds that a test waits for what must happen, on a machine that may have much else to do
US = Selector.parse(f"unix:uid:{os.geteuid()}")


def entry(name: str, *selectors: Selector, **fields: Any) -> Entry:
    """An entry for `spiffe://example.org/<name>`, by default for this very process's user."""
    return Entry(name, SpiffeId.parse(f"spiffe://example.org/{name}"), frozenset(selectors or {US}), **fields)


@dataclass
class RunningAgent:
    """One agent, and the ways to talk to it."""

    directory: Path
    clock: Clock = field(default_factory=SystemClock)
    settings: dict[str, Any] = field(default_factory=dict)
    audit: RecordingAudit = field(default_factory=RecordingAudit)
    agent: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    said: Mapping[str, object] = field(default_factory=dict)

    @property
    def config(self) -> AgentConfig:
        base: dict[str, Any] = {
            "trust_domain": "example.org",
            "state_dir": self.directory / "state",
            "workload_socket": self.workload_socket,
            "admin_socket": self.directory / "admin.sock",
            "sync_interval": timedelta(milliseconds=100),
        }
        return AgentConfig(**{**base, **self.settings})

    @property
    def workload_socket(self) -> Path:
        return self.directory / "workload.sock"

    @property
    def endpoint(self) -> str:
        return f"unix:{self.workload_socket}"

    # Its life

    async def start_agent(self) -> None:
        """Start it, and wait until it says that it is ready, or raise why it ended."""
        self.ready = asyncio.Event()

        def on_ready(fields: Mapping[str, object]) -> None:
            self.said = fields
            self.ready.set()

        self.agent = asyncio.create_task(serve(self.config, self.clock, self.audit, on_ready))
        waiting = asyncio.create_task(self.ready.wait())
        await asyncio.wait({self.agent, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.agent.done():
            await self.agent

    async def launch_agent(self) -> None:
        """Start it and wait until its administration socket answers, however its first attempt fares."""
        self.agent = asyncio.create_task(serve(self.config, self.clock, self.audit, lambda _: None))
        async with asyncio.timeout(PATIENCE):
            while not (self.directory / "admin.sock").is_socket():
                await asyncio.sleep(0.01)

    async def stop_agent(self) -> None:
        if self.agent is not None:
            self.agent.cancel()
            await asyncio.gather(self.agent, return_exceptions=True)
            self.agent = None

    # Its clients

    @asynccontextmanager
    async def client(self) -> AsyncIterator[workload_api.SpiffeWorkloadAPIAsyncStub]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.endpoint, options=options) as channel:
            yield workload_api.SpiffeWorkloadAPIStub(channel)

    async def inspect(self, path: str = "/inspect") -> httpx2.Response:
        transport = httpx2.AsyncHTTPTransport(uds=str(self.directory / "admin.sock"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://agent", timeout=PATIENCE) as client:
            return await client.get(path)

    async def until(self, condition: Any, timeout: float = PATIENCE) -> Any:
        """Wait until the agent's own account fulfils the condition, and return it."""
        async with asyncio.timeout(timeout):
            while not condition(account := (await self.inspect()).json()):
                await asyncio.sleep(0.02)
            return account


@dataclass
class CaIdentity:
    """The fake CA's `DoorIdentity`: one certificate per start, and the bundle as it is at the moment."""

    ca: FakeCa
    own: X509Svid
    known: BundleMap = field(default_factory=BundleMap)

    def svid(self) -> X509Svid:
        return self.own

    def bundles(self) -> BundleMap:
        if self.known.get(self.ca.trust_domain) != self.ca.bundle:
            self.known = BundleMap.of(self.ca.bundle)
        return self.known


@dataclass
class Town(RunningAgent):
    """An agent, and its fake CA behind a real front door."""

    ca: FakeCa = field(default_factory=lambda: FakeCa(SystemClock()))
    ca_path: str = "/spire/server"
    door: FrontDoor | None = None
    port: int = 0

    @property
    def config(self) -> AgentConfig:
        bundle = self.directory / "bundle.pem"
        bundle.write_bytes(self.ca.bundle.to_pem())
        ours: dict[str, Any] = {
            "ca_address": f"127.0.0.1:{self.port}",
            "trust_bundle_path": bundle,
            "join_token": {"value": "a-token"},
        }
        return RunningAgent(self.directory, settings={**ours, **self.settings}).config

    async def open_ca(self, port: int = 0) -> None:
        # A certificate of its own per start, and the same authority for as long as the test does not rotate it.
        self.ca.pki.now = self.ca.clock.now()
        identity = CaIdentity(self.ca, self.ca.pki.issue(self.ca_path, timedelta(hours=12)))
        self.ca.serial_of = _serial_of_caller
        self.door = FrontDoor(
            TcpListen("127.0.0.1", port, identity),
            services=(self.ca.add_to,),
            run_dir=self.directory / "ca",
            clock=SystemClock(),
            audit=RecordingAudit(),
            metrics=Metrics(),
            limits=DoorLimits(connections=128),
        )
        await self.door.start()
        self.port = int(self.door.address.rpartition(":")[2])

    async def close_ca(self) -> None:
        if self.door is not None:
            await self.door.stop(0)
            self.door = None


@asynccontextmanager
async def town(*entries: Entry, start: bool = True, **settings: Any) -> AsyncIterator[Town]:
    """A CA with these entries and, unless told otherwise, a running agent that has synchronised and signed."""
    directory = Path(tempfile.mkdtemp(prefix="lv"))
    here = Town(directory, settings=settings)
    here.ca.tokens["a-token"] = None
    here.ca.add(*entries)
    try:
        await here.open_ca()
        if start:
            await here.start_agent()
            await here.until(lambda account: account["ready"] and all(i["serial"] for i in account["identities"]))
        yield here
    finally:
        await here.stop_agent()
        await here.close_ca()
        shutil.rmtree(directory)


def _serial_of_caller(context: Any) -> int | None:
    identity = caller_of(context).identity
    return identity.serial if identity else None
