"""Which agents have been given a change, as administrators ask for it and as `livery entry create --wait` does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from livery.identity import SpiffeId
from livery.wire import agent_api, entry_api, livery_api, types_api
from livery_ca.entries.catalog import Catalog
from livery_ca.model import Entry
from livery_cli.exits import Exit
from livery_cli.main import run
from tests.fakes.node_agent import SYNC_MASK, NodeAgent, new_key
from tests.integration.running_ca import MovableClock, RunningCa, an_entry, an_id, refusal, running_ca


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[RunningCa]:
    async with running_ca(tmp_path) as running:
        yield running


async def delivery(ca: RunningCa, sequence: int = 0) -> livery_api.GetDeliveryResponse:
    return await livery_api.DeliveryStub(ca.admin).GetDelivery(livery_api.GetDeliveryRequest(sequence=sequence))


async def who_has(ca: RunningCa, sequence: int = 0) -> dict[str, bool]:
    return {agent.id.path: agent.has_it for agent in (await delivery(ca, sequence)).agents}


async def until_it_has(ca: RunningCa, agent: NodeAgent, sequence: int) -> None:
    """What an agent has read is noted a moment later: once the CA has seen that it is sent."""
    async with asyncio.timeout(10):
        while not (await who_has(ca, sequence))[agent.id.path]:
            pass


async def written(ca: RunningCa, agent: NodeAgent, path: str) -> int:
    """Create an entry; the sequence as of which it is there."""
    await ca.create(an_entry(agent.id, path))
    return (await delivery(ca)).latest_sequence


def named(agent_id: SpiffeId) -> types_api.SPIFFEID:
    return an_id(agent_id.path)


async def test_an_agent_has_a_change_once_it_was_given_its_entries_after_it(ca: RunningCa) -> None:
    async with ca.joined() as agent, ca.joined() as other:
        first = await written(ca, agent, "/a")
        assert await who_has(ca, first) == {agent.id.path: False, other.id.path: False}
        await agent.sync()
        await until_it_has(ca, agent, first)
        assert await who_has(ca, first) == {agent.id.path: True, other.id.path: False}

        second = await written(ca, agent, "/b")
        assert second > first
        assert await who_has(ca, second) == {agent.id.path: False, other.id.path: False}
        assert (await who_has(ca, first))[agent.id.path], "it still has the first one"
        await agent.sync()
        await until_it_has(ca, agent, second)
        (given,) = [each for each in (await delivery(ca)).agents if each.id.path == agent.id.path]
        assert given.sequence == second


async def test_an_answer_in_one_message_counts_as_well(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        sequence = await written(ca, agent, "/a")
        await entry_api.EntryStub(agent.channel).GetAuthorizedEntries(entry_api.GetAuthorizedEntriesRequest())
        await until_it_has(ca, agent, sequence)


async def test_a_change_that_comes_while_an_answer_is_made_is_not_claimed(
    ca: RunningCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Catalog.authorized

    async def overtaken(catalog: Catalog, *asked: Any) -> tuple[Entry, ...]:
        entries = await made(catalog, *asked)
        monkeypatch.undo()
        await ca.create(an_entry(agent.id, "/late"))
        await catalog.catch_up()
        return entries

    async with ca.joined() as agent:
        early = await written(ca, agent, "/early")
        monkeypatch.setattr(Catalog, "authorized", overtaken)
        assert [entry.spiffe_id.path for entry in await agent.sync()] == ["/early"]
        await until_it_has(ca, agent, early)
        assert await who_has(ca) == {agent.id.path: False}


async def test_of_many_entries_an_agent_has_all_only_after_its_last_question(ca: RunningCa) -> None:
    """An agent that stops anywhere before that, even at the end of a page, has not got the change."""
    async with ca.joined() as agent:
        await ca.create(*(an_entry(agent.id, f"/w{number}") for number in range(501)))
        sequence = (await delivery(ca)).latest_sequence
        for pages in (0, 1):
            stream, ids = await _revisions(agent)
            for page in range(pages):
                await _ask(stream, ids[500 * page :][:500])
            stream.cancel()
            await agent_api.AgentStub(agent.channel).PostStatus(agent_api.PostStatusRequest())
            assert await who_has(ca, sequence) == {agent.id.path: False}, pages
        stream, ids = await _revisions(agent)
        for page in (ids[:500], ids[500:]):
            await _ask(stream, page)
        await until_it_has(ca, agent, sequence)
        stream.cancel()


async def _revisions(agent: NodeAgent) -> tuple[Any, list[str]]:
    stream = entry_api.EntryStub(agent.channel).SyncAuthorizedEntries()
    await stream.write(entry_api.SyncAuthorizedEntriesRequest(output_mask=SYNC_MASK))
    answer = await stream.read()
    ids = [revision.id for revision in answer.entry_revisions]
    while answer.more:
        answer = await stream.read()
        ids += [revision.id for revision in answer.entry_revisions]
    return stream, sorted(ids)


async def _ask(stream: Any, ids: list[str]) -> None:
    await stream.write(entry_api.SyncAuthorizedEntriesRequest(ids=ids))
    while (await stream.read()).more:
        pass


async def test_banned_and_evicted_agents_keep_nobody_waiting(ca: RunningCa) -> None:
    async with ca.joined() as banned, ca.joined() as evicted, ca.joined() as agent:
        sequence = await written(ca, agent, "/a")
        await ca.agents.BanAgent(agent_api.BanAgentRequest(id=named(banned.id)))
        await ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=named(evicted.id)))
        assert await who_has(ca, sequence) == {agent.id.path: False}


async def test_an_agent_whose_certificate_has_ended_keeps_nobody_waiting(tmp_path: Path) -> None:
    clock = MovableClock()
    async with running_ca(tmp_path, clock, agent_svid_ttl="1m") as ca, ca.joined() as agent:
        assert await who_has(ca) == {agent.id.path: False}
        clock.offset += timedelta(minutes=2)
        assert await who_has(ca) == {}


async def test_an_agent_that_attests_anew_has_nothing_until_it_asks(ca: RunningCa) -> None:
    """It may have lost all it knew."""
    token, key = await ca.token(), new_key()
    async with ca.agent() as agent:
        await agent.join(token, key)
        sequence = await written(ca, agent, "/a")
        await agent.sync()
        await until_it_has(ca, agent, sequence)
        await agent.join(token, key)
        assert await who_has(ca, sequence) == {agent.id.path: False}
        await agent.sync()
        await until_it_has(ca, agent, sequence)


async def test_only_administrators_may_ask(ca: RunningCa) -> None:
    async with ca.joined() as agent, agent.as_nobody() as nobody:
        for channel in (agent.channel, nobody):
            call = livery_api.DeliveryStub(channel).GetDelivery(livery_api.GetDeliveryRequest())
            assert (await refusal(call)).code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_negative_sequence_is_refused(ca: RunningCa) -> None:
    assert (await refusal(delivery(ca, -1))).code() is grpc.StatusCode.INVALID_ARGUMENT


# The command


def create(socket: str, *options: str) -> list[str]:
    fields = ["--spiffe-id", "spiffe://example.org/a", "--parent-id", "spiffe://example.org/p", "--selector", "a:b"]
    return ["entry", "create", *fields, "--ca-socket", socket, "-o", "name", *options]


async def test_a_command_that_waits_ends_when_the_agent_has_it(
    ca: RunningCa, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ca.joined() as agent:
        command = asyncio.create_task(asyncio.to_thread(run, create(ca.socket, "--wait")))
        while not await agent_sees(ca):
            pass
        assert not command.done()
        await agent.sync()
        assert await command == Exit.DONE
        assert capsys.readouterr().err.splitlines() == [f"has it: {agent.id}", "every live agent has it"]


async def agent_sees(ca: RunningCa) -> bool:
    return bool((await ca.entries.CountEntries(entry_api.CountEntriesRequest())).count)


async def test_a_command_that_waited_in_vain_names_who_has_not_got_it(
    ca: RunningCa, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ca.joined() as agent, ca.joined() as other:
        code = await asyncio.to_thread(run, create(ca.socket, "--wait", "--timeout", "1s"))
        assert code == Exit.NO
        missing = sorted([str(agent.id), str(other.id)])
        assert capsys.readouterr().err.splitlines() == [f"does not have it: {agent_id}" for agent_id in missing]
        assert await agent_sees(ca), "the entry is there all the same"


class _OnlyEntries(entry_api.EntryServicer):
    """A server as SPIRE's is: it has entries and no Delivery."""

    created = 0

    def BatchCreateEntry(self, request: object, context: object) -> entry_api.BatchCreateEntryResponse:  # type: ignore[override]
        self.created += 1
        return entry_api.BatchCreateEntryResponse(results=[entry_api.BatchCreateEntryResponse.Result()])


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[str, _OnlyEntries]]:
    server = grpc.server(ThreadPoolExecutor(2))
    entries = _OnlyEntries()
    entry_api.add_EntryServicer_to_server(entries, server)
    address = f"unix:{tmp_path}/plain.sock"
    server.add_insecure_port(address)
    server.start()
    yield address, entries
    server.stop(None).wait()


def test_a_server_that_cannot_tell_is_found_out_before_anything_is_changed(
    plain: tuple[str, _OnlyEntries], capsys: pytest.CaptureFixture[str]
) -> None:
    address, entries = plain
    assert run(create(address, "--wait")) == Exit.REFUSED
    told = capsys.readouterr().err
    assert "cannot tell what its agents have been given" in told
    assert "[cannot_tell]" in told
    assert entries.created == 0
    assert run(create(address)) == Exit.DONE
    assert entries.created == 1
