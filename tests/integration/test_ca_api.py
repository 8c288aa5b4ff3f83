"""The server API as agents and administrators live through it: joining, renewing, being turned away, syncing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.wrappers_pb2 import BoolValue

from livery.identity import BundleMap, SpiffeId, leaf_id, parse_chain, verify_jwt, verify_x509
from livery.wire import agent_api, bundle_api, entry_api, svid_api, types_api
from livery_ca.attest.pop_twin import twin_of
from livery_ca.doors.guard.rights import RIGHTS, Class
from tests.fakes import hostile_csrs
from tests.fakes.node_agent import NodeAgent, new_csr, new_key, svid_of
from tests.integration.doors import now
from tests.integration.running_ca import (
    MovableClock,
    RunningCa,
    an_entry,
    an_id,
    reasons_of,
    refusal,
    running_ca,
)
from tests.pki import TestCa, Twist, usage


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[RunningCa]:
    async with running_ca(tmp_path) as running:
        yield running


@pytest.fixture
def node_ca() -> TestCa:
    return TestCa("nodes.test", now=now(), name="Node root", spiffe_id=None)


@pytest.fixture
async def pop_ca(tmp_path: Path, node_ca: TestCa) -> AsyncIterator[RunningCa]:
    """A CA that also admits nodes with certificates of `node_ca`."""
    (tmp_path / "nodes.pem").write_bytes(node_ca.certificate.public_bytes(Encoding.PEM))
    async with running_ca(tmp_path, x509pop={"ca_bundle_paths": [tmp_path / "nodes.pem"]}) as running:
        yield running


def node_certificate(issuer: TestCa, **twists: Any) -> tuple[Any, list[x509.Certificate]]:
    key = new_key()
    twist = Twist(subject="node-1", key=key, key_usage=usage(digital_signature=True), san=False, **twists)
    return key, [issuer.sign_leaf("", twist), *issuer.above()]


def bundle_of(ca: RunningCa) -> BundleMap:
    return BundleMap.of(ca.bundle)


def named(agent_id: SpiffeId) -> types_api.SPIFFEID:
    return types_api.SPIFFEID(trust_domain=agent_id.trust_domain.name, path=agent_id.path)


async def status(agent: NodeAgent) -> Any:
    """The cheapest call that an agent makes."""
    return await agent_api.AgentStub(agent.channel).PostStatus(agent_api.PostStatusRequest())


# Who may call


async def test_every_method_admits_the_callers_of_its_row_and_denies_all_others(ca: RunningCa) -> None:
    """Empty requests: what is admitted may be refused for its content, what is denied is denied before that."""
    async with ca.joined() as agent, ca.agent() as nobody:
        callers = {Class.LOCAL: ca.admin, Class.AGENT: agent.channel, Class(0): nobody.channel}
        extra = [ca.agent() for _ in range(3)]
        offices: dict[Any, dict[str, bool]] = {Class.ADMIN: {"admin": True}, Class.DOWNSTREAM: {"downstream": True}}
        for caller, office in zip(extra, [*offices.values(), {}], strict=True):
            key = new_key()
            (entry,) = await ca.create(an_entry(agent.id, f"/{'-'.join(office) or 'workload'}", **office))
            (result,) = await agent.batch_new([(entry.id, new_csr(key))])
            await caller.use(svid_of(result.svid, key))
        callers |= {Class.ADMIN: extra[0].channel, Class.DOWNSTREAM: extra[1].channel}
        wrong = []
        for method, classes in RIGHTS.items():
            for name, channel in [*callers.items(), ("workload", extra[2].channel)]:
                allowed = Class.ANY in classes or (isinstance(name, Class) and bool(name & classes))
                code, details = await _knock(channel, method)
                if (code is grpc.StatusCode.PERMISSION_DENIED) is allowed:
                    wrong.append(f"{method} by {name}: {code} {details}")
                elif not allowed and details != f"authorization denied for method {method}":
                    wrong.append(f"{method} by {name}: {details}")
        for caller in extra:
            await caller.__aexit__()
        assert not wrong, "\n".join(wrong)


async def _knock(channel: grpc.aio.Channel, method: str) -> tuple[grpc.StatusCode, str]:
    """The code that one empty message is answered with; every method can be called as a stream of raw bytes."""
    call = channel.stream_stream(method)
    stream = call([b""], timeout=10)
    try:
        async for _ in stream:
            break
        stream.cancel()
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


async def test_an_administrator_whose_entry_is_deleted_is_none_at_the_next_call(ca: RunningCa) -> None:
    async with ca.joined() as agent, ca.agent() as boss:
        key = new_key()
        (entry,) = await ca.create(an_entry(agent.id, "/boss", admin=True))
        (result,) = await agent.batch_new([(entry.id, new_csr(key))])
        await boss.use(svid_of(result.svid, key))
        stub = entry_api.EntryStub(boss.channel)
        assert (await stub.CountEntries(entry_api.CountEntriesRequest())).count == 1
        await ca.entries.BatchDeleteEntry(entry_api.BatchDeleteEntryRequest(ids=[entry.id]))
        error = await refusal(stub.CountEntries(entry_api.CountEntriesRequest()))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_administrator_by_configuration_administers(tmp_path: Path) -> None:
    async with running_ca(tmp_path, admin_ids=["spiffe://example.org/boss"]) as ca, ca.joined() as agent:
        key = new_key()
        (entry,) = await ca.create(an_entry(agent.id, "/boss"))
        (result,) = await agent.batch_new([(entry.id, new_csr(key))])
        await agent.use(svid_of(result.svid, key))
        assert (await agent_api.AgentStub(agent.channel).CountAgents(agent_api.CountAgentsRequest())).count == 1


# Joining by token


async def test_of_fifty_keys_that_use_one_token_at_once_one_is_admitted_and_may_come_again(ca: RunningCa) -> None:
    token = await ca.token()
    keys = [new_key() for _ in range(50)]

    async def attempt(key: Any) -> Any:
        async with ca.agent() as agent:
            return await agent.attest("join_token", token.encode(), new_csr(key))

    results = await asyncio.gather(*(attempt(key) for key in keys), return_exceptions=True)
    admitted = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
    assert len(admitted) == 1
    texts = {result.details() for result in results if isinstance(result, grpc.aio.AioRpcError)}
    assert texts == {"failed to attest: join token does not exist or has already been used"}
    agents = await ca.agents.ListAgents(agent_api.ListAgentsRequest())
    assert len(agents.agents) == 1
    again = await attempt(keys[admitted[0]])
    assert again.svid.id.path == f"/spire/agent/join_token/{token}"
    assert not again.reattestable


async def test_attesting_again_ends_the_certificate_that_came_before(ca: RunningCa) -> None:
    """So it is when the reply was lost: the agent has the second one, and the first was never anybody's."""
    token, key = await ca.token(), new_key()
    async with ca.agent() as agent, ca.agent() as second:
        await agent.join(token, key)
        await second.join(token, key)
        await status(second)
        assert reasons_of(await refusal(status(agent))) == ["AGENT_NOT_ACTIVE"]


async def test_the_alias_of_a_token_is_a_parent_for_workloads_and_goes_with_its_node(ca: RunningCa) -> None:
    async with ca.agent() as agent:
        await agent.join(await ca.token(alias="/nodes/db"))
        await ca.create(an_entry("/nodes/db", "/postgres"))
        paths = sorted(entry.spiffe_id.path for entry in await agent.sync())
        assert paths == ["/nodes/db", "/postgres"]
        await ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=named(agent.id)))
        left = await ca.entries.ListEntries(entry_api.ListEntriesRequest())
        assert [entry.spiffe_id.path for entry in left.entries] == ["/postgres"]


async def test_no_log_of_the_audit_shows_a_token_before_its_use(ca: RunningCa) -> None:
    token = await ca.token()
    (event,) = ca.audit.of("token.create")
    assert event["agent"] == f"join_token/{token[:4]}…"
    assert token not in str(event)


async def test_a_stream_that_is_closed_without_a_word_is_answered(ca: RunningCa) -> None:
    async with ca.agent() as agent, agent.as_nobody() as channel:
        stream = agent_api.AgentStub(channel).AttestAgent()
        await stream.done_writing()
        error = await refusal(stream.read())
        assert (error.code(), error.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "failed to receive request from stream",
        )


async def test_agents_are_found_by_what_they_are(ca: RunningCa) -> None:
    async with ca.joined() as one, ca.joined() as other:
        await ca.agents.BanAgent(agent_api.BanAgentRequest(id=named(other.id)))
        for banned, expected in ((True, other), (False, one)):
            wanted = agent_api.ListAgentsRequest.Filter(by_banned=BoolValue(value=banned))
            (found,) = (await ca.agents.ListAgents(agent_api.ListAgentsRequest(filter=wanted))).agents
            assert found.id.path == expected.id.path
        counting = agent_api.CountAgentsRequest.Filter(by_attestation_type="join_token")
        assert (await ca.agents.CountAgents(agent_api.CountAgentsRequest(filter=counting))).count == 2
        page = await ca.agents.ListAgents(agent_api.ListAgentsRequest(page_size=1))
        last = await ca.agents.ListAgents(agent_api.ListAgentsRequest(page_size=5, page_token=page.next_page_token))
        assert [each.id.path for each in (*page.agents, *last.agents)] == [one.id.path, other.id.path]


# Joining by certificate


async def test_a_node_joins_by_its_certificate_and_is_entitled_by_what_it_says(
    pop_ca: RunningCa, node_ca: TestCa
) -> None:
    key, chain = node_certificate(node_ca)
    async with pop_ca.agent() as agent:
        svid = await agent.join_with(key, chain)
        assert svid.id.segments[:3] == ("spire", "agent", "x509pop")
        await pop_ca.create(
            an_entry("/spire/server", "/nodes/all", "x509pop:subject:cn:node-1"), an_entry("/nodes/all", "/web")
        )
        assert [entry.spiffe_id.path for entry in await agent.sync()] == ["/web"]
        shown = await pop_ca.agents.GetAgent(agent_api.GetAgentRequest(id=named(agent.id)))
        assert shown.can_reattest
        assert shown.x509svid_serial_number == str(svid.serial)
        assert "subject:cn:node-1" in [selector.value for selector in shown.selectors]


async def test_four_intermediates_are_followed(pop_ca: RunningCa, node_ca: TestCa) -> None:
    issuer = node_ca
    for number in range(4):
        issuer = issuer.intermediate(name=f"Rung {number}", spiffe_id=None)
    key, chain = node_certificate(issuer)
    async with pop_ca.agent() as agent:
        assert await agent.join_with(key, chain)


async def test_a_node_that_does_not_have_its_certificates_key_stays_outside(pop_ca: RunningCa, node_ca: TestCa) -> None:
    _, chain = node_certificate(node_ca)
    async with pop_ca.agent() as agent:
        error = await refusal(agent.join_with(new_key(), chain))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error.details().startswith("nodeattestor(x509pop): challenge response verification failed: ")
        assert reasons_of(error) == []
    assert (await pop_ca.agents.CountAgents(agent_api.CountAgentsRequest())).count == 0


# Renewing


async def test_the_first_use_of_a_renewed_certificate_ends_the_old_one_and_not_before(ca: RunningCa) -> None:
    async with ca.joined() as agent, ca.agent() as renewed:
        new = await agent.renew()
        await status(agent)
        await renewed.use(new)
        await status(renewed)
        error = await refusal(status(agent))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reasons_of(error) == ["AGENT_NOT_ACTIVE"]
        assert error.details() == "authorization denied for method /spire.api.server.agent.v1.Agent/PostStatus"


async def test_a_renewal_whose_reply_was_lost_is_renewed_by_the_old_certificate(ca: RunningCa) -> None:
    async with ca.joined() as agent, ca.agent() as late:
        lost = await agent.renew()
        kept = await agent.renew()
        await agent.use(kept)
        await status(agent)
        await late.use(lost)
        assert reasons_of(await refusal(status(late))) == ["AGENT_NOT_ACTIVE"]


async def test_agents_and_workloads_have_lifetimes_of_their_own(tmp_path: Path) -> None:
    ttls = {"agent_svid_ttl": "20m", "default_x509_svid_ttl": "2m", "default_jwt_svid_ttl": "1m"}
    async with running_ca(tmp_path, **ttls) as ca, ca.joined() as agent:
        assert agent.svid is not None
        assert _lifetime(agent.svid.leaf) == timedelta(minutes=20)
        plain, short = await ca.create(an_entry(agent.id, "/a"), an_entry(agent.id, "/b", x509_svid_ttl=60))
        results = await agent.batch_new([(each.id, new_csr(new_key())) for each in (plain, short)])
        lives = [_lifetime(parse_chain(result.svid.cert_chain[0])[0]) for result in results]
        assert lives == [timedelta(minutes=2), timedelta(minutes=1)]


def _dns_names(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(names.get_values_for_type(x509.DNSName))


def _lifetime(cert: x509.Certificate) -> timedelta:
    backdate = timedelta(seconds=10)
    return cert.not_valid_after_utc - cert.not_valid_before_utc - backdate


# Being turned away


async def test_a_banned_node_is_out_at_once_and_for_good_until_it_is_evicted(
    pop_ca: RunningCa, node_ca: TestCa
) -> None:
    key, chain = node_certificate(node_ca)
    async with pop_ca.agent() as agent:
        await agent.join_with(key, chain)
        who = named(agent.id)
        await pop_ca.agents.BanAgent(agent_api.BanAgentRequest(id=who))
        assert reasons_of(await refusal(status(agent))) == ["AGENT_BANNED"]
        error = await refusal(agent.join_with(key, chain))
        assert (error.code(), error.details()) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "failed to attest: agent is banned",
        )
        assert reasons_of(error) == []
        assert (await pop_ca.agents.GetAgent(agent_api.GetAgentRequest(id=who))).banned
        await pop_ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=who))
        assert reasons_of(await refusal(status(agent))) == ["AGENT_NOT_ATTESTED"]
        await agent.join_with(key, chain)
        await status(agent)


async def test_a_banned_node_does_not_come_back_by_the_other_form_of_its_certificate(
    pop_ca: RunningCa, node_ca: TestCa
) -> None:
    """The last bytes of a certificate can be written anew without its issuer, and an agent is named after all bytes."""
    key, (leaf,) = node_certificate(node_ca)
    twin = x509.load_der_x509_certificate(twin_of(leaf, node_ca.certificate) or b"")
    async with pop_ca.agent() as agent, pop_ca.agent() as other:
        await agent.join_with(key, [leaf])
        error = await refusal(other.join_with(key, [twin]))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert f"{agent.id} joined with the same evidence in another form" in (error.details() or "")
        await pop_ca.agents.BanAgent(agent_api.BanAgentRequest(id=named(agent.id)))
        assert (await refusal(other.join_with(key, [twin]))).details() == "failed to attest: agent is banned"
        await pop_ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=named(agent.id)))
        await other.join_with(key, [twin])
        await status(other)


async def test_an_evicted_join_token_node_does_not_come_back_not_even_with_its_token_and_key(ca: RunningCa) -> None:
    token, key = await ca.token(), new_key()
    async with ca.agent() as agent:
        await agent.join(token, key)
        await ca.agents.DeleteAgent(agent_api.DeleteAgentRequest(id=named(agent.id)))
        assert reasons_of(await refusal(status(agent))) == ["AGENT_NOT_ATTESTED"]
        error = await refusal(agent.join(token, key))
        assert error.details() == "failed to attest: join token does not exist or has already been used"


async def test_an_agent_banned_while_its_sync_is_open_gets_nothing_more(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        await ca.create(*(an_entry(agent.id, f"/w{number}") for number in range(501)))
        stream = entry_api.EntryStub(agent.channel).SyncAuthorizedEntries()
        mask = types_api.EntryMask(revision_number=True)
        await stream.write(entry_api.SyncAuthorizedEntriesRequest(output_mask=mask))
        ids = [revision.id for revision in (await stream.read()).entry_revisions]
        await stream.read()
        await ca.agents.BanAgent(agent_api.BanAgentRequest(id=named(agent.id)))
        await stream.write(entry_api.SyncAuthorizedEntriesRequest(ids=ids[:1]))
        assert reasons_of(await refusal(stream.read())) == ["AGENT_BANNED"]


# Entries


async def test_more_than_a_page_of_entries_arrives_whole_and_once(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        made = await ca.create(*(an_entry(agent.id, f"/w{number}", f"unix:uid:{number}") for number in range(512)))
        synced = await agent.sync()
        assert sorted(entry.id for entry in synced) == sorted(entry.id for entry in made)
        rest = await agent.sync(known=[entry.id for entry in made[:500]])
        assert sorted(entry.id for entry in rest) == sorted(entry.id for entry in made[500:])
        everything = await entry_api.EntryStub(agent.channel).GetAuthorizedEntries(
            entry_api.GetAuthorizedEntriesRequest()
        )
        assert len(everything.entries) == 512


@pytest.mark.parametrize("count", [500, 501])
async def test_the_page_boundary_is_at_five_hundred(ca: RunningCa, count: int) -> None:
    async with ca.joined() as agent:
        await ca.create(*(an_entry(agent.id, f"/w{number}") for number in range(count)))
        stream = entry_api.EntryStub(agent.channel).SyncAuthorizedEntries()
        mask = types_api.EntryMask(revision_number=True)
        await stream.write(entry_api.SyncAuthorizedEntriesRequest(output_mask=mask))
        first = await stream.read()
        assert (len(first.entries), len(first.entry_revisions)) == ((500, 0) if count == 500 else (0, 500))
        assert first.more is (count > 500)
        stream.cancel()


async def test_an_id_that_is_used_again_is_seen_as_another_entry(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        await ca.create(an_entry(agent.id, "/old", id="mine"))
        assert [entry.spiffe_id.path for entry in await agent.sync()] == ["/old"]
        await ca.entries.BatchDeleteEntry(entry_api.BatchDeleteEntryRequest(ids=["mine"]))
        assert await agent.sync() == []
        await ca.create(an_entry(agent.id, "/new", id="mine"))
        assert [entry.spiffe_id.path for entry in await agent.sync()] == ["/new"]


async def test_an_update_replaces_what_its_mask_names_and_counts_up(ca: RunningCa) -> None:
    (made,) = await ca.create(an_entry("/p", "/w", hint="old", dns_names=["w.example"]))
    assert made.revision_number == 0
    change = types_api.Entry(id=made.id, hint="new", dns_names=["ignored.example"])
    mask = types_api.EntryMask(hint=True)
    request = entry_api.BatchUpdateEntryRequest(entries=[change], input_mask=mask)
    (result,) = (await ca.entries.BatchUpdateEntry(request)).results
    assert (result.entry.hint, list(result.entry.dns_names)) == ("new", ["w.example"])
    assert result.entry.revision_number == 1
    assert result.entry.created_at == made.created_at
    request = entry_api.BatchUpdateEntryRequest(entries=[an_entry("/p", "/w", id=made.id)])
    (result,) = (await ca.entries.BatchUpdateEntry(request)).results
    assert (result.entry.hint, list(result.entry.dns_names), result.entry.revision_number) == ("", [], 2)


async def test_a_similar_entry_comes_back_as_it_is(ca: RunningCa) -> None:
    (made,) = await ca.create(an_entry("/p", "/w", "unix:uid:1", "unix:gid:1", hint="first"))
    twin = an_entry("/p", "/w", "unix:gid:1", "unix:uid:1", hint="second")
    (result,) = (await ca.entries.BatchCreateEntry(entry_api.BatchCreateEntryRequest(entries=[twin]))).results
    assert result.status.code == grpc.StatusCode.ALREADY_EXISTS.value[0]
    assert result.entry == made


async def test_the_probe_of_spires_controller_manager_finds_every_field(ca: RunningCa) -> None:
    """It creates an entry under its own ID and takes a field that comes back empty for one that is not supported."""
    path = "/spire-controller-manager/unsupported-fields-test"
    probe = an_entry(
        path, path, "a:1", x509_svid_ttl=60, jwt_svid_ttl=60, store_svid=True, hint="hint", dns_names=["a.example"]
    )
    (made,) = await ca.create(probe)
    for name in ("x509_svid_ttl", "jwt_svid_ttl", "store_svid", "hint", "dns_names"):
        assert getattr(made, name) == getattr(probe, name)


async def test_lists_end_with_an_empty_page_and_are_whole(ca: RunningCa) -> None:
    made = await ca.create(*(an_entry("/p", f"/w{number}") for number in range(5)))
    token, pages = "", []
    while True:
        page = await ca.entries.ListEntries(entry_api.ListEntriesRequest(page_size=2, page_token=token))
        pages.append([entry.id for entry in page.entries])
        token = page.next_page_token
        if not token:
            break
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [entry_id for page in pages for entry_id in page] == [entry.id for entry in made]


async def test_weak_selectors_are_accepted_with_a_warning(ca: RunningCa) -> None:
    request = entry_api.BatchCreateEntryRequest(entries=[an_entry("/p", "/w", "unix:path:/usr/bin/web")])
    call = ca.entries.BatchCreateEntry(request)
    assert (await call).results[0].status.code == 0
    assert "unix:path" in dict(await call.trailing_metadata())["livery-warning"]


async def test_each_doubt_about_a_batch_is_told_once_with_the_entries_it_is_about(ca: RunningCa) -> None:
    wrong = [an_entry("/p", f"/w{number}", "uid:1") for number in range(5)]
    short = an_entry("/p", "/short", "unix:uid:1", x509_svid_ttl=5)
    refused = an_entry("/p", "/refused", "unix:path:/usr/bin/web", dns_names=["no name"])
    call = ca.entries.BatchCreateEntry(entry_api.BatchCreateEntryRequest(entries=[*wrong, short, refused]))
    assert [bool(result.status.code) for result in (await call).results] == [False] * 6 + [True]
    told = [value for key, value in await call.trailing_metadata() if key == "livery-warning"]
    assert told == [
        "no agent finds selectors of type uid; write unix:uid:... (/w0, /w1, /w2 and 2 more)",
        "x509_svid_ttl is under 10 s, and nothing so short is signed",
    ]


async def test_a_batch_with_every_doubt_about_entries_with_long_paths_still_has_its_answer(ca: RunningCa) -> None:
    """gRPC's clients take 8 KiB of trailers, and fail a call with more: of one that was carried out."""
    kinds = ("uid", "gid", "supplementary_gid", "user", "group", "supplementary_group", "path", "sha256")
    doubtful = [*(f"{kind}:1" for kind in kinds), *(f"unix:{kind}:" for kind in kinds), "unix:what:1"]
    entries = [
        an_entry("/p", f"/{'w' * 1900}{number}/{time}", selector, x509_svid_ttl=5, jwt_svid_ttl=5)
        for number, selector in enumerate(doubtful)
        for time in range(4)
    ]
    call = ca.entries.BatchCreateEntry(entry_api.BatchCreateEntryRequest(entries=entries))
    assert {result.status.code for result in (await call).results} == {0}
    told = [str(value) for key, value in await call.trailing_metadata() if key == "livery-warning"]
    assert len(told) >= len(doubtful) + 2


# SVIDs


async def test_of_a_greedy_csr_the_key_is_taken_and_nothing_else(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        key = new_key()
        (entry,) = await ca.create(an_entry(agent.id, "/web", dns_names=["web.example"]))
        (result,) = await agent.batch_new([(entry.id, hostile_csrs.greedy(key))])
        (leaf,) = parse_chain(result.svid.cert_chain[0])
        assert leaf_id(leaf) == SpiffeId.parse("spiffe://example.org/web")
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(name.value) for name in names] == ["spiffe://example.org/web", "web.example"]
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        assert leaf.public_key() == key.public_key()
        assert verify_x509((leaf,), bundle_of(ca), now()).id.path == "/web"


async def test_a_dns_name_that_is_asked_for_twice_is_in_the_certificate_once(ca: RunningCa) -> None:
    """SPIRE takes such an entry: what was stored comes back as it was given, and its workload is not locked out."""
    name = x509.DNSName("web.example")
    async with ca.joined() as agent:
        (entry,) = await ca.create(an_entry(agent.id, "/web", dns_names=["web.example", "web.example"]))
        assert list(entry.dns_names) == ["web.example", "web.example"]
        (result,) = await agent.batch_new([(entry.id, new_csr(new_key()))])
        assert _dns_names(parse_chain(result.svid.cert_chain[0])[0]) == ["web.example"]
    uri = x509.UniformResourceIdentifier("spiffe://example.org/minted")
    minted = await ca.svids.MintX509SVID(svid_api.MintX509SVIDRequest(csr=new_csr(new_key(), uri, name, name)))
    assert _dns_names(parse_chain(minted.svid.cert_chain[0])[0]) == ["web.example"]


async def test_an_agents_greedy_csr_gives_an_agent_and_nothing_else(ca: RunningCa) -> None:
    async with ca.agent() as agent:
        token, key = await ca.token(), new_key()
        result = await agent.attest("join_token", token.encode(), hostile_csrs.greedy(key))
        (leaf,) = parse_chain(result.svid.cert_chain[0])
        assert leaf_id(leaf).path == f"/spire/agent/join_token/{token}"


async def test_a_batch_is_answered_in_its_order(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        made = await ca.create(*(an_entry(agent.id, f"/w{number}") for number in range(40)))
        keys = [new_key() for _ in made]
        wanted = [(entry.id, new_csr(key)) for entry, key in zip(made, keys, strict=True)]
        wanted.insert(7, ("nowhere", wanted[0][1]))
        results = await agent.batch_new(wanted)
        assert results[7].status.code == grpc.StatusCode.NOT_FOUND.value[0]
        del results[7]
        for number, (result, key) in enumerate(zip(results, keys, strict=True)):
            assert svid_of(result.svid, key).id.path == f"/w{number}"
            assert result.svid.expires_at > now().timestamp()


async def test_a_jwt_svid_is_for_its_audience_and_says_what_its_entry_says(tmp_path: Path) -> None:
    async with running_ca(tmp_path, jwt_issuer="https://issuer.example") as ca, ca.joined() as agent:
        attributes = types_api.Entry.AdditionalAttributes(jwt_svid_include_jti=True)
        (entry,) = await ca.create(an_entry(agent.id, "/web", jwt_svid_ttl=90, additional_attributes=attributes))
        request = svid_api.NewJWTSVIDRequest(entry_id=entry.id, audience=["them", "others"])
        svid = (await svid_api.SVIDStub(agent.channel).NewJWTSVID(request)).svid
        verified = verify_jwt(svid.token, bundle_of(ca), "them", now())
        assert (verified.id.path, verified.audience) == ("/web", ("them", "others"))
        assert svid.expires_at - svid.issued_at == 90
        assert verified.claims["iss"] == "https://issuer.example"
        assert verified.claims["jti"]


async def test_an_administrator_mints_certificates_and_tokens(ca: RunningCa) -> None:
    key = new_key()
    uri, dns = x509.UniformResourceIdentifier("spiffe://example.org/minted"), x509.DNSName("minted.example")
    request = svid_api.MintX509SVIDRequest(csr=new_csr(key, uri, dns, subject=x509.Name([])), ttl=120)
    svid = svid_of((await ca.svids.MintX509SVID(request)).svid, key)
    assert svid.id.path == "/minted"
    assert _lifetime(svid.leaf) == timedelta(minutes=2)
    assert svid.leaf.subject.rfc4514_string() == "CN=minted.example,O=SPIRE,C=US", "SPIRE's command names none"
    minted = svid_api.MintJWTSVIDRequest(id=an_id("/minted"), audience=["them"], ttl=60)
    token = (await ca.svids.MintJWTSVID(minted)).svid.token
    assert verify_jwt(token, bundle_of(ca), "them", now()).id.path == "/minted"


async def test_the_bundle_is_the_same_for_strangers_and_agents_and_its_mask_holds(ca: RunningCa) -> None:
    async with ca.joined() as agent, agent.as_nobody() as channel:
        request = bundle_api.GetBundleRequest()
        assert await bundle_api.BundleStub(agent.channel).GetBundle(request) == await bundle_api.BundleStub(
            channel
        ).GetBundle(request)
        mask = types_api.BundleMask(sequence_number=True)
        masked = await bundle_api.BundleStub(channel).GetBundle(bundle_api.GetBundleRequest(output_mask=mask))
        assert {field.name for field, _ in masked.ListFields()} == {"trust_domain", "sequence_number"}


# What is remembered


async def test_what_an_agent_says_of_itself_is_shown(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        stub = agent_api.AgentStub(agent.channel)
        await stub.PostStatus(agent_api.PostStatusRequest(agent_version="9.9", current_bundle_serial=3))
        await stub.PostStatus(agent_api.PostStatusRequest(current_bundle_serial=4))
        (shown,) = (await ca.agents.ListAgents(agent_api.ListAgentsRequest())).agents
        assert shown.agent_version == "9.9"


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as ca, ca.joined() as agent:
        (entry,) = await ca.create(an_entry(agent.id, "/web"))
        svid, bundle = agent.svid, ca.bundle
    async with running_ca(tmp_path) as again, again.agent() as agent:
        assert again.bundle == bundle
        await agent.use(svid)
        assert [each.id for each in await agent.sync()] == [entry.id]


async def test_every_attestation_issue_and_change_is_audited(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        (entry,) = await ca.create(an_entry(agent.id, "/web"))
        await agent.batch_new([(entry.id, new_csr(new_key())), ("nowhere", new_csr(new_key()))])
        await agent.renew()
        await ca.entries.BatchDeleteEntry(entry_api.BatchDeleteEntryRequest(ids=[entry.id]))
        await refusal(agent_api.AgentStub(agent.channel).BanAgent(agent_api.BanAgentRequest(id=named(agent.id))))
        who = str(agent.id)
    told = {str(event["event"]): event for event in ca.audit.events}
    assert told["node.attest"]["agent"] == who
    assert (told["svid.issue"]["caller"], told["svid.issue"]["spiffe_id"]) == (who, "spiffe://example.org/web")
    assert told["svid.issue"]["rule"] == f"entry/{entry.id}@0"
    assert told["node.renew"]["agent"] == who
    assert str(told["entry.delete"]["caller"]).startswith("uid:")
    assert (told["call.authorize"]["outcome"], told["call.authorize"]["caller"]) == ("denied", who)
    assert len(ca.audit.of("svid.issue")) == 1


async def test_nothing_is_issued_that_cannot_be_audited(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        (entry,) = await ca.create(an_entry(agent.id, "/web"))
        ca.audit.broken = True
        error = await refusal(agent.batch_new([(entry.id, new_csr(new_key()))]))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        ca.audit.broken = False
        assert (await agent.batch_new([(entry.id, new_csr(new_key()))]))[0].status.code == 0


# Limits


async def test_attestation_is_one_a_second_and_waits_unless_the_deadline_would_pass(tmp_path: Path) -> None:
    limited = running_ca(tmp_path, limits={"max_connections": 128})
    async with limited as ca, ca.agent() as agent, agent.as_nobody() as channel:

        async def attempt(timeout: float) -> grpc.aio.AioRpcError:
            """An attestation that says nothing: what it waits for is its turn, and it is refused after that."""
            stream = agent_api.AgentStub(channel).AttestAgent(timeout=timeout)
            await stream.write(agent_api.AttestAgentRequest())
            return await refusal(stream.read())

        assert (await attempt(5)).code() is grpc.StatusCode.INVALID_ARGUMENT
        hurried, patient = await asyncio.gather(attempt(0.5), attempt(5))
        assert hurried.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert hurried.details().startswith("rejecting request due to attest agent rate limiting: ")
        assert patient.code() is grpc.StatusCode.INVALID_ARGUMENT


# Time


async def test_a_token_admits_nobody_after_its_end(tmp_path: Path) -> None:
    clock = MovableClock()
    async with running_ca(tmp_path, clock) as ca, ca.agent() as agent:
        token = await ca.token(ttl=5)
        clock.offset += timedelta(seconds=6)
        assert (await refusal(agent.join(token))).details() == "join token expired"


async def test_an_agent_on_a_connection_that_outlived_its_certificate_learns_that_it_expired(tmp_path: Path) -> None:
    clock = MovableClock()
    async with running_ca(tmp_path, clock, agent_svid_ttl="30s") as ca, ca.joined() as agent:
        await status(agent)
        clock.offset += timedelta(seconds=31)
        error = await refusal(status(agent))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reasons_of(error) == ["AGENT_EXPIRED"]
        stranger = bundle_api.BundleStub(agent.channel).GetBundle(bundle_api.GetBundleRequest())
        assert (await refusal(stranger)).code() is grpc.StatusCode.UNAUTHENTICATED
