"""The agent as its own process, started by the command (and so on uvloop), killed at bad moments and started again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from livery.wire import workload_api
from tests.integration.agents import HEADER, PATIENCE, RunningAgent
from tests.integration.running_ca import RunningCa, an_entry, running_ca

US = f"unix:uid:{os.geteuid()}"
X509 = workload_api.X509SVIDRequest()


@pytest.fixture
def directory() -> Any:
    made = Path(tempfile.mkdtemp(prefix="lv"))
    yield made
    shutil.rmtree(made)


@dataclass
class AgentProcess(RunningAgent):
    """An agent in a process of its own; the clients are `RunningAgent`'s."""

    process: asyncio.subprocess.Process | None = None

    def configure(self, ca: RunningCa, token: str) -> None:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "bundle.pem").write_bytes(ca.bundle.to_pem())
        (self.directory / "token").touch(mode=0o600)
        (self.directory / "token").write_text(token)
        lines = {
            "trust_domain": "example.org",
            "ca_address": ca.address,
            "trust_bundle_path": str(self.directory / "bundle.pem"),
            "state_dir": str(self.directory / "state"),
            "workload_socket": str(self.workload_socket),
            "admin_socket": str(self.directory / "admin.sock"),
            "sync_interval": "200ms",
        }
        text = "[agent]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
        text += f"[agent.join_token]\npath = {json.dumps(str(self.directory / 'token'))}\n"
        (self.directory / "livery.toml").write_text(text)

    async def run(self) -> None:
        command = [sys.executable, "-m", "livery_cli", "agent", "run", "--config", self.directory / "livery.toml"]
        with (self.directory / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def until_served(self) -> Any:
        """The first message of a stream, asked for until there is one."""
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.client() as stub:
                    try:
                        return await stub.FetchX509SVID(X509, metadata=HEADER).read()
                    except grpc.aio.AioRpcError as error:
                        allowed = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED)
                        assert error.code() in allowed, error
                await asyncio.sleep(0.05)


@asynccontextmanager
async def agent_process(ca: RunningCa, directory: Path) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(directory / "agent")
    agent.configure(ca, await ca.token(alias="/node"))
    await agent.run()
    try:
        yield agent
    finally:
        if agent.process is not None and agent.process.returncode is None:
            await agent.kill()


async def test_a_killed_agent_comes_back_with_its_identity_and_its_workloads_have_theirs(directory: Path):
    async with running_ca(directory) as ca, agent_process(ca, directory) as agent:
        await ca.create(an_entry("/node", "/orders", US))
        first = await agent.until_served()
        node = (await agent.inspect()).json()["node"]["serial"]
        await agent.kill()
        assert agent.workload_socket.exists(), "it had no time to clean up"
        await agent.run()
        again = await agent.until_served()
        assert again.svids[0].spiffe_id == first.svids[0].spiffe_id
        assert again.svids[0].x509_svid_key != first.svids[0].x509_svid_key
        assert (await agent.inspect()).json()["node"]["serial"] == node


@pytest.mark.parametrize("written", ["node.json", "bundle.json"], ids=["the key", "the bundle"])
async def test_an_agent_killed_while_it_joins_joins_at_the_next_start_with_the_same_token(
    directory: Path, written: str
):
    """Killed when its key is on disk, with the request on its way; or with the answer received and not yet kept."""
    async with running_ca(directory) as ca, agent_process(ca, directory) as agent:
        await ca.create(an_entry("/node", "/orders", US))
        async with asyncio.timeout(PATIENCE):
            while not (agent.directory / "state" / written).exists():
                await asyncio.sleep(0)
        await agent.kill()
        await agent.run()
        await agent.until_served()


async def test_sigterm_ends_it_in_order_while_streams_are_open(directory: Path):
    async with running_ca(directory) as ca, agent_process(ca, directory) as agent:
        await ca.create(an_entry("/node", "/orders", US))
        await agent.until_served()
        async with agent.client() as stub:
            call = stub.FetchX509SVID(X509, metadata=HEADER)
            await call.read()
            assert agent.process is not None
            agent.process.terminate()
            assert await asyncio.wait_for(agent.process.wait(), PATIENCE) == 0
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await call.read()
        assert not agent.workload_socket.exists()
        log = (agent.directory / "agent.log").read_text()
        assert "Traceback" not in log
        assert "PRIVATE" not in log


async def test_a_spent_token_ends_it_with_exit_code_four_and_says_what_to_do(directory: Path):
    async with running_ca(directory) as ca, agent_process(ca, directory) as agent:
        await ca.create(an_entry("/node", "/orders", US))
        await agent.until_served()
        await agent.kill()
        shutil.rmtree(agent.directory / "state")
        await agent.run()
        assert agent.process is not None
        assert await asyncio.wait_for(agent.process.wait(), PATIENCE) == 4
        said = (agent.directory / "agent.log").read_text().splitlines()[-4:]
        assert any("no identity" in line for line in said), said
        assert any("join token" in line for line in said), said
