"""The real agent with the real CA: from nothing to SVIDs, and through everything that can happen to either."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from livery.identity import BundleMap, SpiffeId, TrustBundle, TrustDomain, parse_chain, verify_jwt, verify_x509
from livery.wire import agent_api, entry_api, workload_api
from livery_agent.errors import NodeLost
from tests.fakes.node_files import Files
from tests.integration.agents import HEADER, RunningAgent
from tests.integration.running_ca import OURS, RunningCa, an_entry, running_ca

US = f"unix:uid:{os.geteuid()}"
X509 = workload_api.X509SVIDRequest()


@pytest.fixture
def directory() -> Any:
    """A short path: sockets go into it."""
    made = Path(tempfile.mkdtemp(prefix="lv"))
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def agent_of(ca: RunningCa, directory: Path, **settings: Any) -> AsyncIterator[RunningAgent]:
    """An agent for this CA, by join token unless `settings` say otherwise."""
    bundle = directory / "bundle.json"
    bundle.write_bytes(ca.bundle.to_jwks())
    base: dict[str, Any] = {
        "ca_address": ca.address,
        "trust_bundle_path": bundle,
        "trust_bundle_format": "spiffe",
    }
    if "x509pop" not in settings:
        base["join_token"] = {"value": await ca.token(alias="/node")}
    agent = RunningAgent(directory / "agent", settings={**base, **settings})
    agent.directory.mkdir(exist_ok=True)
    try:
        await agent.start_agent()
        yield agent
    finally:
        await agent.stop_agent()


def pop(files: Files) -> dict[str, Any]:
    """Settings of both sides for attestation by this certificate."""
    return {
        "certificate_path": files.certificate,
        "private_key_path": files.private,
        "intermediates_path": files.intermediates,
    }


def pop_authority(files: Files, directory: Path) -> dict[str, Any]:
    path = directory / "nodes.pem"
    path.write_bytes(files.root.bundle().to_pem())
    return {"ca_bundle_paths": (path,)}


async def read(call: Any, timeout: float = 20) -> Any:
    message = await asyncio.wait_for(call.read(), timeout)
    assert message is not grpc.aio.EOF
    return message


def workloads(account: Any) -> list[Any]:
    """The identities, without the node's own alias, which is an entry too."""
    return [i for i in account["identities"] if i["spiffe_id"] != "spiffe://example.org/node"]


def has_svids(count: int) -> Any:
    return lambda account: [i["state"] for i in workloads(account)] == ["valid"] * count


async def node_id(agent: RunningAgent) -> SpiffeId:
    return SpiffeId.parse((await agent.inspect()).json()["node"]["spiffe_id"])


async def test_a_node_joins_by_token_and_its_workload_has_x509_and_jwt_svids(directory: Path):
    async with running_ca(directory) as ca, agent_of(ca, directory) as agent, agent.client() as stub:
        await ca.create(an_entry("/node", "/orders", US, dns_names=["orders.test"], hint="main"))
        await agent.until(has_svids(1))
        message = await read(stub.FetchX509SVID(X509, metadata=HEADER))
        (sent,) = message.svids
        assert (sent.spiffe_id, sent.hint) == ("spiffe://example.org/orders", "main")
        bundle = TrustBundle.from_x509_der(OURS, sent.bundle)
        verify_x509(parse_chain(sent.x509_svid), BundleMap.of(bundle), agent.clock.now())

        tokens = await stub.FetchJWTSVID(workload_api.JWTSVIDRequest(audience=["them"]), metadata=HEADER)
        verify_jwt(tokens.svids[0].svid, BundleMap.of(ca.bundle), "them", agent.clock.now())
        request = workload_api.ValidateJWTSVIDRequest(audience="them", svid=tokens.svids[0].svid)
        assert (await stub.ValidateJWTSVID(request, metadata=HEADER)).spiffe_id == sent.spiffe_id


async def test_entries_come_change_and_go_and_streams_follow(directory: Path):
    async with running_ca(directory) as ca, agent_of(ca, directory) as agent, agent.client() as stub:
        (first,) = await ca.create(an_entry("/node", "/a", US))
        await agent.until(has_svids(1))
        call = stub.FetchX509SVID(X509, metadata=HEADER)
        before = await read(call)
        await ca.create(an_entry("/node", "/b", US))
        assert {s.spiffe_id for s in (await read(call)).svids} == {"spiffe://example.org/a", "spiffe://example.org/b"}
        first.dns_names.append("a.test")
        await ca.entries.BatchUpdateEntry(entry_api.BatchUpdateEntryRequest(entries=[first]))
        after = {s.spiffe_id: s.x509_svid for s in (await read(call)).svids}["spiffe://example.org/a"]
        assert after != before.svids[0].x509_svid
        assert b"a.test" in after
        await ca.entries.BatchDeleteEntry(entry_api.BatchDeleteEntryRequest(ids=[first.id]))
        assert [s.spiffe_id for s in (await read(call)).svids] == ["spiffe://example.org/b"]
        call.cancel()


async def test_more_entries_than_a_page_all_arrive(directory: Path):
    count = 501
    async with running_ca(directory) as ca, agent_of(ca, directory) as agent:
        await ca.create(*(an_entry("/node", f"/w{n}", f"unix:uid:{n + 5000}") for n in range(count)))
        account = await agent.until(has_svids(count), timeout=120)
        assert len({i["spiffe_id"] for i in workloads(account)}) == count


async def test_a_restarted_ca_is_found_again_and_no_stream_breaks(directory: Path):
    async with running_ca(directory) as ca, agent_of(ca, directory) as agent, agent.client() as stub:
        await ca.create(an_entry("/node", "/orders", US))
        await agent.until(has_svids(1))
        call = stub.FetchX509SVID(X509, metadata=HEADER)
        await read(call)
        port = int(ca.address.rpartition(":")[2])
        ca.task.cancel()
        await asyncio.gather(ca.task, return_exceptions=True)
        await agent.until(lambda account: account["failing"])
        await read(stub.FetchX509SVID(X509, metadata=HEADER))
        async with running_ca(directory, listen_port=port) as again:
            await again.create(an_entry("/node", "/more", US))
            assert len((await read(call, 60)).svids) == 2
            await agent.until(lambda account: not account["failing"])
        call.cancel()


async def test_a_join_token_node_renews_its_own_certificate_and_the_ca_knows_the_new_one(directory: Path):
    async with running_ca(directory, agent_svid_ttl="20s") as ca, agent_of(ca, directory) as agent:
        first = (await agent.inspect()).json()["node"]["serial"]
        second = (await agent.until(lambda account: account["node"]["serial"] != first))["node"]["serial"]
        account = await agent.until(lambda account: account["synced_at"] > account["node"]["received_at"])
        assert account["failing"] == []
        (listed,) = (await ca.agents.ListAgents(agent_api.ListAgentsRequest())).agents
        assert int(listed.x509svid_serial_number) == int(second, 16)


async def test_short_svids_rotate_on_an_open_stream_without_a_gap(directory: Path):
    async with running_ca(directory) as ca, agent_of(ca, directory) as agent, agent.client() as stub:
        await ca.create(an_entry("/node", "/orders", US, x509_svid_ttl=10))
        await agent.until(has_svids(1))
        call = stub.FetchX509SVID(X509, metadata=HEADER)
        ends = agent.clock.now()
        for turn in range(2):
            leaf = parse_chain((await read(call)).svids[0].x509_svid)[0]
            assert turn == 0 or agent.clock.now() < ends, "the next one comes before the last one's end"
            ends = leaf.not_valid_after_utc
        call.cancel()


async def test_an_x509pop_node_attests_and_comes_back_after_eviction(directory: Path, tmp_path: Path):
    files = Files(tmp_path)
    async with (
        running_ca(directory, x509pop=pop_authority(files, tmp_path)) as ca,
        agent_of(ca, directory, x509pop=pop(files)) as agent,
    ):
        node = await node_id(agent)
        assert node.path.startswith("/spire/agent/x509pop/")
        await ca.create(an_entry(node, "/orders", US))
        before = await agent.until(has_svids(1))
        await ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=an_entry(node, "/x").parent_id))
        after = await agent.until(lambda a: a["node"]["serial"] != before["node"]["serial"] and not a["failing"])
        assert after["identities"][0]["serial"] == before["identities"][0]["serial"], "workloads noticed nothing"


async def test_a_banned_node_ends_and_stays_out(directory: Path, tmp_path: Path):
    files = Files(tmp_path)
    async with running_ca(directory, x509pop=pop_authority(files, tmp_path)) as ca:
        async with agent_of(ca, directory, x509pop=pop(files)) as agent:
            wire = an_entry(await node_id(agent), "/x").parent_id
            await ca.agents.BanAgent(agent_api.BanAgentRequest(id=wire))
            assert agent.agent is not None
            with pytest.raises(NodeLost, match="banned"):
                await asyncio.wait_for(agent.agent, 20)
        with pytest.raises(NodeLost):
            async with agent_of(ca, directory, x509pop=pop(files)):
                raise AssertionError("it was let in")


async def test_an_evicted_join_token_node_ends_and_a_new_token_brings_it_back(directory: Path):
    async with running_ca(directory) as ca:
        async with agent_of(ca, directory) as agent:
            wire = an_entry(await node_id(agent), "/x").parent_id
            await ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=wire))
            assert agent.agent is not None
            with pytest.raises(NodeLost):
                await asyncio.wait_for(agent.agent, 20)
        async with agent_of(ca, directory) as agent:
            await agent.until(lambda account: account["ready"])


async def test_a_restarted_agent_goes_on_without_attesting_and_serves_before_the_ca_is_back(directory: Path):
    async with running_ca(directory) as ca, agent_of(ca, directory) as agent, agent.client() as stub:
        await ca.create(an_entry("/node", "/orders", US))
        node = (await agent.until(has_svids(1)))["node"]
        await agent.stop_agent()
        ca.task.cancel()
        await asyncio.gather(ca.task, return_exceptions=True)
        await agent.start_agent()
        account = (await agent.inspect()).json()
        assert (account["node"]["serial"], account["ready"]) == (node["serial"], False)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.FetchX509SVID(X509, metadata=HEADER).read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_status_acknowledges_the_bundle(directory: Path):
    async with running_ca(directory) as ca, agent_of(ca, directory) as agent:
        account = await agent.until(lambda account: account["acknowledged_sequence"] is not None)
        assert account["acknowledged_sequence"] == ca.bundle.sequence
        listed = await ca.agents.ListAgents(agent_api.ListAgentsRequest())
        assert [a.agent_version for a in listed.agents] == [account["version"]]


async def test_an_insecure_bootstrap_works_with_the_authority_the_ca_presents(directory: Path):
    async with (
        running_ca(directory) as ca,
        agent_of(ca, directory, insecure_bootstrap=True, trust_bundle_path=None) as agent,
    ):
        account = await agent.until(lambda account: account["ready"])
        ours = TrustDomain(account["bundles"][0]["trust_domain"])
        assert ours == OURS
