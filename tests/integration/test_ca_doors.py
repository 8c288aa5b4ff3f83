"""What the CA's doors do beside answering: audit before the effect, masks, rates, lifetimes nobody asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from google.protobuf.message import Message

from livery.runtime.clock import SystemClock
from livery.wire import agent_api, entry_api, logger_api, svid_api, types_api
from tests.fakes.node_agent import NodeAgent, new_csr, new_key
from tests.integration.running_ca import NO_LIMITS, RunningCa, an_entry, an_id, refusal, running_ca

MINTED = x509.UniformResourceIdentifier("spiffe://example.org/minted")


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[RunningCa]:
    async with running_ca(tmp_path) as running:
        yield running


def agents_of(agent: NodeAgent) -> agent_api.AgentStub:
    return agent_api.AgentStub(agent.channel)


def svids_of(agent: NodeAgent) -> svid_api.SVIDStub:
    return svid_api.SVIDStub(agent.channel)


def fields_of(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


# The audit record comes before the effect


async def test_what_cannot_be_audited_does_not_happen(ca: RunningCa) -> None:
    token = await ca.token()
    async with ca.joined() as agent, ca.agent() as late:
        (entry,) = await ca.create(an_entry(agent.id, "/web"))
        who, renewal = an_id(agent.id.path), agent_api.AgentX509SVIDParams(csr=new_csr(new_key()))
        ca.audit.broken = True
        refused = {
            "ban": ca.agents.BanAgent(agent_api.BanAgentRequest(id=who)),
            "delete": ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=who)),
            "token": ca.agents.CreateJoinToken(agent_api.CreateJoinTokenRequest(ttl=60, token="chosen")),
            "join": late.join(token),
            "renew": agents_of(agent).RenewAgent(agent_api.RenewAgentRequest(params=renewal)),
            "issue": svids_of(agent).NewJWTSVID(svid_api.NewJWTSVIDRequest(entry_id=entry.id, audience=["them"])),
            "mint": ca.svids.MintX509SVID(svid_api.MintX509SVIDRequest(csr=new_csr(new_key(), MINTED))),
            "mint JWT": ca.svids.MintJWTSVID(svid_api.MintJWTSVIDRequest(id=an_id("/minted"), audience=["them"])),
            "level": logger_api.LoggerStub(ca.admin).SetLogLevel(
                logger_api.SetLogLevelRequest(new_level=types_api.LogLevel.FATAL)
            ),
        }
        codes = {name: (await refusal(call)).code() for name, call in refused.items()}
        ca.audit.broken = False
        assert codes == dict.fromkeys(refused, grpc.StatusCode.UNAVAILABLE)
        (shown,) = (await ca.agents.ListAgents(agent_api.ListAgentsRequest())).agents
        assert (shown.id, shown.banned) == (who, False)
        await ca.agents.CreateJoinToken(agent_api.CreateJoinTokenRequest(ttl=60, token="chosen"))
        await late.join(token)
        level = await logger_api.LoggerStub(ca.admin).GetLogger(logger_api.GetLoggerRequest())
        assert level.current_level == level.launch_level


async def test_what_administrators_do_to_nodes_and_what_is_issued_is_audited_with_who_asked(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        (entry,) = await ca.create(an_entry(agent.id, "/web"))
        await svids_of(agent).NewJWTSVID(svid_api.NewJWTSVIDRequest(entry_id=entry.id, audience=["them"]))
        await ca.svids.MintX509SVID(svid_api.MintX509SVIDRequest(csr=new_csr(new_key(), MINTED)))
        await ca.agents.BanAgent(agent_api.BanAgentRequest(id=an_id(agent.id.path)))
        await ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=an_id(agent.id.path)))
    told = {str(event["event"]): event for event in ca.audit.events}
    for event in ("node.ban", "node.delete"):
        assert (told[event]["outcome"], told[event]["agent"]) == ("granted", str(agent.id))
        assert str(told[event]["caller"]).startswith("uid:")
    issued, minted = told["jwt.issue"], told["svid.issue"]
    assert (issued["spiffe_id"], issued["caller"]) == ("spiffe://example.org/web", str(agent.id))
    assert (issued["entry"], issued["rule"]) == (entry.id, f"entry/{entry.id}@0")
    assert (minted["spiffe_id"], minted["rule"]) == ("spiffe://example.org/minted", "local")
    assert str(minted["caller"]).startswith("uid:")


async def test_an_svid_that_is_refused_after_all_is_audited_as_failed_and_its_item_says_why(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        short, sound = await ca.create(an_entry(agent.id, "/short", x509_svid_ttl=9), an_entry(agent.id, "/sound"))
        refused, issued = await agent.batch_new([(each.id, new_csr(new_key())) for each in (short, sound)])
    assert refused.status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert refused.status.message.startswith("failed to sign X509-SVID: the lifetime asked for is too short: ")
    assert issued.status.code == 0
    (failed,) = [event for event in ca.audit.of("svid.issue") if event["outcome"] == "failed"]
    assert (failed["spiffe_id"], failed["entry"]) == ("spiffe://example.org/short", short.id)


# Masks


async def test_an_answer_shows_what_its_mask_names_and_the_id(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        hinted = an_entry(agent.id, "/web", hint="h")
        mask = types_api.EntryMask(hint=True)
        create = entry_api.BatchCreateEntryRequest(entries=[hinted], output_mask=mask)
        (made,) = (await ca.entries.BatchCreateEntry(create)).results
        (twin,) = (await ca.entries.BatchCreateEntry(create)).results
        update = entry_api.BatchUpdateEntryRequest(
            entries=[types_api.Entry(id=made.entry.id, hint="new")], input_mask=mask, output_mask=mask
        )
        (changed,) = (await ca.entries.BatchUpdateEntry(update)).results
        got = await ca.entries.GetEntry(entry_api.GetEntryRequest(id=made.entry.id, output_mask=mask))
        listed = await ca.entries.ListEntries(entry_api.ListEntriesRequest(output_mask=mask))
        stub = entry_api.EntryStub(agent.channel)
        own = await stub.GetAuthorizedEntries(entry_api.GetAuthorizedEntriesRequest(output_mask=mask))
        for entry in (made.entry, twin.entry, changed.entry, got, *listed.entries, *own.entries):
            assert fields_of(entry) == {"id", "hint"}
        agents_mask = types_api.AgentMask(attestation_type=True)
        shown = await ca.agents.GetAgent(agent_api.GetAgentRequest(id=an_id(agent.id.path), output_mask=agents_mask))
        (first,) = (await ca.agents.ListAgents(agent_api.ListAgentsRequest(output_mask=agents_mask))).agents
        assert fields_of(shown) == fields_of(first) == {"id", "attestation_type"}


# Rates


class StoppedWatch(SystemClock):
    """The real clock with a stopwatch that stands: no bucket fills, however slow the machine is."""

    def monotonic(self) -> float:
        return 1000.0


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("post_status", "rejecting request due to post status rate limiting: "),
        ("x509_signing", "rejecting request due to renew agent rate limiting: "),
        ("jwt_signing", "rejecting request due to JWT signing request rate limiting: "),
    ],
)
async def test_an_agent_does_not_queue_for_longer_than_its_deadline(tmp_path: Path, limit: str, what: str) -> None:
    limited = running_ca(tmp_path, StoppedWatch(), limits={**NO_LIMITS, limit: 1})
    async with limited as ca, ca.joined() as agent:
        (entry,) = await ca.create(an_entry(agent.id, "/web"))

        def call(timeout: float) -> Any:
            match limit:
                case "post_status":
                    return agents_of(agent).PostStatus(agent_api.PostStatusRequest(), timeout=timeout)
                case "jwt_signing":
                    request = svid_api.NewJWTSVIDRequest(entry_id=entry.id, audience=["them"])
                    return svids_of(agent).NewJWTSVID(request, timeout=timeout)
            params = agent_api.AgentX509SVIDParams(csr=new_csr(new_key()))
            return agents_of(agent).RenewAgent(agent_api.RenewAgentRequest(params=params), timeout=timeout)

        await call(20)
        queue = [call(20) for _ in range(12)]
        error = await refusal(call(5))
        for waiting in queue:
            waiting.cancel()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (error.details() or "").startswith(what)


# Lifetimes


async def test_a_token_of_which_nobody_said_how_long_lives_as_configured(tmp_path: Path) -> None:
    async with running_ca(tmp_path, default_jwt_svid_ttl="2m") as ca, ca.joined() as agent:
        (entry,) = await ca.create(an_entry(agent.id, "/web"))
        request = svid_api.NewJWTSVIDRequest(entry_id=entry.id, audience=["them"])
        issued = (await svids_of(agent).NewJWTSVID(request)).svid
        minting = svid_api.MintJWTSVIDRequest(id=an_id("/minted"), audience=["them"])
        minted = (await ca.svids.MintJWTSVID(minting)).svid
        assert issued.expires_at - issued.issued_at == minted.expires_at - minted.issued_at == 120
