"""A whole CA in this process, on free addresses, and those who call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from google.rpc.status_pb2 import Status

from livery.identity import SpiffeId, TrustBundle, TrustDomain
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.metrics import Metrics
from livery.runtime.spire_types import bundle_from_wire
from livery.wire import agent_api, bundle_api, entry_api, svid_api, types_api
from livery_ca.config import CaConfig
from livery_ca.engine import Surroundings
from livery_ca.main import serve
from tests.fakes.audit import RecordingAudit
from tests.fakes.node_agent import NodeAgent

OURS = TrustDomain("example.org")
NO_LIMITS = {"attestation": 0, "x509_signing": 0, "jwt_signing": 0, "post_status": 0, "max_connections": 256}


def an_id(path: str) -> types_api.SPIFFEID:
    return types_api.SPIFFEID(trust_domain=OURS.name, path=path)


def an_entry(parent: SpiffeId | str, path: str, *selectors: str, **fields: Any) -> types_api.Entry:
    """An entry as a message; selectors are `unix:uid:1` unless given."""
    pairs = [each.partition(":")[::2] for each in selectors or ("unix:uid:1",)]
    chosen = [types_api.Selector(type=kind, value=value) for kind, value in pairs]
    parent_path = parent if isinstance(parent, str) else parent.path
    return types_api.Entry(spiffe_id=an_id(path), parent_id=an_id(parent_path), selectors=chosen, **fields)


@dataclass
class RunningCa:
    """A CA that serves, and an administrator's connection to it."""

    address: str
    socket: str
    run_dir: Path
    audit: RecordingAudit
    admin: grpc.aio.Channel
    bundle: TrustBundle
    task: asyncio.Task[None]

    def agent(self) -> NodeAgent:
        """An agent that has not joined."""
        return NodeAgent(self.address, self.bundle, self.run_dir)

    @property
    def agents(self) -> agent_api.AgentStub:
        return agent_api.AgentStub(self.admin)

    @property
    def entries(self) -> entry_api.EntryStub:
        return entry_api.EntryStub(self.admin)

    @property
    def svids(self) -> svid_api.SVIDStub:
        return svid_api.SVIDStub(self.admin)

    async def token(self, ttl: int = 600, alias: str = "") -> str:
        """A new join token."""
        agent_id = an_id(alias) if alias else None
        created = await self.agents.CreateJoinToken(agent_api.CreateJoinTokenRequest(ttl=ttl, agent_id=agent_id))
        return str(created.value)

    async def create(self, *entries: types_api.Entry) -> list[types_api.Entry]:
        """Create entries, and fail the test if one is refused."""
        response = await self.entries.BatchCreateEntry(entry_api.BatchCreateEntryRequest(entries=entries))
        assert all(result.status.code == 0 for result in response.results), response
        return [result.entry for result in response.results]

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[NodeAgent]:
        """An agent that has joined by token."""
        async with self.agent() as agent:
            await agent.join(await self.token())
            yield agent


@asynccontextmanager
async def running_ca(
    state: Path, clock: Clock | None = None, *, audit: RecordingAudit | None = None, **settings: Any
) -> AsyncIterator[RunningCa]:
    """A CA of example.org on this state, until the block ends. Limits are lifted unless `limits` are given."""
    config = CaConfig(
        **{
            "trust_domain": OURS.name,
            "state_dir": state / "ca",
            "listen_port": 0,
            "admin_socket": state / "admin.sock",
            "limits": NO_LIMITS,
            **settings,
        }
    )
    clock, audit = clock or SystemClock(), audit or RecordingAudit()
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(config, Surroundings(clock, audit, Metrics()), ready.set_result))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stopped, task)
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        address, socket = ready.result()["address"], ready.result()["socket"]
        admin = await stack.enter_async_context(grpc.aio.insecure_channel(socket))
        bundle = bundle_from_wire(await bundle_api.BundleStub(admin).GetBundle(bundle_api.GetBundleRequest()))
        yield RunningCa(address, socket, state / "run", audit, admin, bundle, task)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """The error a call ends with; fails the test if it does not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was not refused")


def reasons_of(error: grpc.aio.AioRpcError) -> Sequence[str]:
    """The reasons in the details trailer, by name."""
    details = types_api.PermissionDeniedDetails
    found = []
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = Status.FromString(value if isinstance(value, bytes) else value.encode())
            assert status.code == error.code().value[0]
            assert [each.type_url for each in status.details] == [
                "type.googleapis.com/spire.api.types.PermissionDeniedDetails"
            ]
            found += [details.Reason.Name(details.FromString(each.value).reason) for each in status.details]
    return found


class MovableClock(SystemClock):
    """The real clock, moved by `offset`. Small moves only: certificates are verified by OpenSSL's clock."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.offset


class HastyClock(SystemClock):
    """The real clock, on which whoever waits, waits a hundredth: what is done every few seconds is done at once."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 100)
