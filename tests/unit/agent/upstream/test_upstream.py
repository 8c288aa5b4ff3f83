"""Each RPC as the agent sees it, against a real gRPC server; and what a failed one means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from livery.identity import SpiffeId, TrustDomain
from livery.wire import agent_api, entry_api
from livery_agent.attest.node.attestor import NodeProof
from livery_agent.errors import (
    CaAnswerUnusable,
    CaRefused,
    CaUnavailable,
    NodeBanned,
    NodeExpired,
    NodeMustReattest,
    NodeRefused,
)
from livery_agent.node.keys import new_key, request
from livery_agent.upstream import SigningRequest, Unsigned, joining, sync
from livery_agent.upstream.conversation import Conversation
from livery_agent.upstream.joining import Issued, JoinRequest
from tests.fakes.agent import Insides, entry, insides
from tests.fakes.ca import REASON
from tests.pki import TestCa

TD = TrustDomain("example.org")


@pytest.fixture
async def here() -> AsyncIterator[Insides]:
    async with insides(entry("a"), entry("b")) as here:
        yield here


async def test_few_entries_come_in_one_message(here: Insides):
    assert {e.id for e in await here.upstream.entries({})} == {"a", "b"}


async def test_no_entries_are_no_error(here: Insides):
    here.ca.entries.clear()
    assert await here.upstream.entries({}) == ()


@pytest.mark.parametrize("count", [10, 11, 20, 25])
async def test_many_entries_come_in_pages_and_only_those_that_changed(here: Insides, count: int):
    here.ca.orders.page = 10
    here.ca.entries.clear()
    here.ca.add(*(entry(f"e{n:02}", created_at=5) for n in range(count)))
    first = await here.upstream.entries({})
    assert {e.id for e in first} == set(here.ca.entries)

    here.ca.sent_entries.clear()
    here.ca.revise("e07", hint="new")
    again = await here.upstream.entries({e.id: e for e in first})
    assert {e.id: e for e in again} == here.ca.entries
    assert set(here.ca.sent_entries) == ({"e07"} if count > 10 else set(here.ca.entries))


@pytest.mark.parametrize(("count", "asked"), [(10, []), (11, [10, 1]), (20, [10, 10, 0]), (25, [10, 10, 5])])
async def test_the_last_question_is_for_less_than_a_page(here: Insides, count: int, asked: list[int]):
    """By that the CA knows that this node has all its entries; also when it lacks none."""
    here.ca.orders.page = 10
    here.ca.entries.clear()
    here.ca.add(*(entry(f"e{n:02}", created_at=5) for n in range(count)))
    first = await here.upstream.entries({})
    assert here.ca.asked == asked
    here.ca.asked.clear()
    await here.upstream.entries({e.id: e for e in first})
    assert here.ca.asked == ([0] if asked else [])


class EndedCall:
    """A call that the CA ends after its first message, before the answer to that is written; as grpc.aio tells it."""

    def __init__(self, first: Any) -> None:
        self._messages = [first]
        self._written = 0

    def add_done_callback(self, callback: object) -> None: ...

    async def write(self, _: object) -> None:
        self._written += 1
        if self._written > 1:
            raise asyncio.InvalidStateError("RPC already finished.")

    async def read(self) -> Any:
        if self._messages:
            return self._messages.pop()
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.PERMISSION_DENIED, grpc.aio.Metadata(), grpc.aio.Metadata(), "agent is banned"
        )


def channel_to(call: object) -> grpc.aio.Channel:
    """A channel whose streams are this call."""

    class Channel:
        def stream_stream(self, *_: object, **__: object) -> Any:
            return lambda **_: call

        def unary_unary(self, *_: object, **__: object) -> Any:
            return None

    return cast("grpc.aio.Channel", Channel())


async def test_a_synchronisation_that_the_ca_ends_says_what_the_ca_said():
    revisions = [entry_api.EntryRevision(id="a", revision_number=1)]
    call = EndedCall(entry_api.SyncAuthorizedEntriesResponse(entry_revisions=revisions))
    with pytest.raises(grpc.aio.AioRpcError, match="banned"):
        await sync.converse(Conversation(cast("Any", call)), {})


async def test_an_attestation_that_the_ca_ends_says_what_the_ca_said():
    channel = channel_to(EndedCall(agent_api.AttestAgentResponse(challenge=b"nonce")))
    proof = NodeProof(b"payload", lambda challenge: challenge)
    with pytest.raises(grpc.aio.AioRpcError, match="banned"):
        await joining.join(channel, JoinRequest("x509pop", proof, b"csr"), 5.0)


async def test_a_ca_that_would_not_stop_asking_is_left():
    asked = 0

    class Endless:
        def add_done_callback(self, callback: object) -> None: ...

        async def write(self, _: object) -> None: ...

        async def read(self) -> Any:
            nonlocal asked
            asked += 1
            assert asked < 100, "it is still answered"
            return agent_api.AttestAgentResponse(challenge=b"nonce")

    proof = NodeProof(b"payload", lambda challenge: challenge)
    with pytest.raises(CaAnswerUnusable, match="would not stop asking"):
        await joining.join(channel_to(Endless()), JoinRequest("x509pop", proof, b"csr"), 5.0)


async def test_an_id_used_again_after_a_deletion_is_fetched_anew(here: Insides):
    here.ca.orders.page = 1
    known = {e.id: e for e in await here.upstream.entries({})}
    here.ca.add(entry("a", created_at=99, hint="born again"))
    assert {e.id: e.hint for e in await here.upstream.entries(known)} == {"a": "born again", "b": ""}


@pytest.mark.parametrize(("revision", "born", "current"), [(1, 5, True), (1, 0, True), (2, 5, False), (1, 6, False)])
def test_an_entry_is_the_one_we_have_if_revision_and_birth_are_or_the_ca_knows_no_births(
    revision: int, born: int, current: bool
):
    held = entry("a", revision=1, created_at=5)
    told = entry_api.EntryRevision(id="a", revision_number=revision, created_at=born)
    assert sync._is_current(held, told) is current


async def test_an_entry_that_vanishes_between_its_revision_and_itself_is_left_out(here: Insides):
    here.ca.orders.page = 1
    real = here.ca.entry_message
    here.ca.entry_message = lambda e: (here.ca.entries.pop("b", None) and real(e)) or real(e)  # type: ignore[method-assign]
    assert {e.id for e in await here.upstream.entries({})} == {"a"}


async def test_an_entry_that_cannot_be_read_does_not_keep_the_others_from_arriving(here: Insides):
    real = here.ca.entry_message

    def spoil(of: object) -> object:
        message = real(of)  # type: ignore[arg-type]
        if message.id == "a":
            message.spiffe_id.path = "/bad/../path"
        return message

    here.ca.entry_message = spoil  # type: ignore[assignment, method-assign]
    assert {e.id for e in await here.upstream.entries({})} == {"b"}


async def test_the_bundle_keeps_its_sequence_and_taints(here: Insides):
    here.ca.rotate(taint=True)
    bundle = await here.upstream.bundle(TD)
    assert bundle.sequence == 2
    assert [a.tainted for a in bundle.x509_authorities] == [True, False]


async def test_a_bundle_of_another_trust_domain_is_refused(here: Insides):
    with pytest.raises(CaAnswerUnusable, match=r"example\.org"):
        await here.upstream.bundle(TrustDomain("other.test"))


async def test_a_federated_bundle_that_the_ca_does_not_have_is_none(here: Insides):
    partner = TestCa("partner.test", now=here.clock.now())
    assert await here.upstream.federated_bundle(partner.trust_domain) is None
    here.ca.orders.federated["partner.test"] = partner.bundle()
    found = await here.upstream.federated_bundle(partner.trust_domain)
    assert found is not None
    assert found.x509_authorities == partner.bundle().x509_authorities


async def test_signing_answers_in_order_and_an_item_that_fails_does_not_fail_the_others(here: Insides):
    here.ca.orders.decline["a"] = (13, "failed to sign X509-SVID")
    ids = ["a", "b", "unknown"]
    answers = await here.upstream.sign([SigningRequest(id_, request(new_key())) for id_ in ids])
    assert isinstance(answers[1], Issued)
    assert answers[1].id == SpiffeId.parse("spiffe://example.org/b")
    assert answers[0] == Unsigned("failed to sign X509-SVID", passing=True)
    assert answers[2] == Unsigned("entry not found or not authorized", passing=False)


async def test_an_answer_with_fewer_results_than_requests_is_for_nobody(here: Insides):
    """Which of them is missing cannot be told, and an SVID must not meet another's key."""
    here.ca.orders.max_results = 1
    requests = [SigningRequest(name, request(new_key())) for name in "ab"]
    with pytest.raises(CaAnswerUnusable, match="1 results for 2 requests"):
        await here.upstream.sign(requests)


async def test_a_jwt_svid_is_for_the_entry_and_audience_asked_for(here: Insides):
    svid = await here.upstream.jwt_svid("a", ["x", "y"])
    assert (str(svid.id), svid.audience) == ("spiffe://example.org/a", ("x", "y"))


async def test_the_status_names_the_bundle_in_use(here: Insides):
    await here.upstream.post_status(7, "1.2.3")
    posted = here.ca.statuses[-1]
    assert (posted.current_bundle_serial, posted.agent_version) == (7, "1.2.3")


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (REASON.AGENT_EXPIRED, NodeExpired),
        (REASON.AGENT_NOT_ATTESTED, NodeRefused),
        (REASON.AGENT_NOT_ACTIVE, NodeRefused),
        (REASON.AGENT_BANNED, NodeBanned),
        (REASON.AGENT_MUST_REATTEST, NodeMustReattest),
        (REASON.UNKNOWN, CaRefused),
    ],
)
async def test_each_reason_in_the_details_has_its_own_error(here: Insides, reason: int, error: type[Exception]):
    here.ca.orders.refuse = reason
    for call in (here.upstream.entries({}), here.upstream.post_status(1, ""), here.upstream.jwt_svid("a", ["x"])):
        with pytest.raises(error) as refused:
            await call
        assert type(refused.value) is error


async def test_a_ca_that_is_away_is_unavailable_and_one_that_says_no_has_refused(here: Insides):
    with pytest.raises(CaRefused, match="NOT_FOUND"):
        await here.upstream.jwt_svid("unknown", ["x"])
    here.ca.orders.away = True
    with pytest.raises(CaUnavailable, match="the CA is away"):
        await here.upstream.entries({})
    await here.ca.stop()
    with pytest.raises(CaUnavailable):
        await here.upstream.bundle(TD)


async def test_a_dial_that_failed_is_told_in_the_dialers_words_and_not_in_grpcs(here: Insides):
    """gRPC knows the socket within this process alone, and that is no address an operator can look at."""
    await here.ca.stop()
    here.dial.dialers[-1].last_refusal = "Connection refused"
    with pytest.raises(CaUnavailable) as away:
        await here.upstream.bundle(TD)
    assert away.value.why == "UNAVAILABLE: Connection refused"


async def test_hazard_23_agent_not_active_on_a_superseded_connection_is_retried_not_obeyed(here: Insides):
    """A call under way while the connection is swapped comes back as "not active": it is made again on the new one."""
    call = await held_call(here)
    assert here.node.svid is not None
    swap = asyncio.create_task(here.connection.swap(here.node.svid))
    await asyncio.sleep(0)
    here.ca.orders.refuse_next.append(REASON.AGENT_NOT_ACTIVE)
    here.ca.orders.held.set()
    await asyncio.gather(call, swap)
    assert here.ca.statuses[-1].agent_version == "held"
    assert not here.ca.orders.refuse_next, "it was refused once"


async def test_hazard_23_a_call_cut_off_by_the_swap_is_made_again_and_the_old_svid_is_dead_by_then(here: Insides):
    call = await held_call(here)
    old = here.node.svid
    bundle = here.snapshots.current.bundle
    assert bundle is not None
    await here.node.renew(bundle)  # the drain gives up after 0.2 s
    await here.upstream.bundle(TD)
    here.ca.orders.held.set()
    await call
    assert here.ca.statuses[-1].agent_version == "held"
    assert old is not None
    assert old.serial not in {row.serial for row in here.ca.nodes.values()}


async def test_hazard_23_the_same_refusal_on_the_current_connection_is_obeyed(here: Insides):
    here.ca.orders.refuse = REASON.AGENT_NOT_ACTIVE
    with pytest.raises(NodeRefused):
        await here.upstream.post_status(1, "")


async def test_being_cancelled_is_not_mistaken_for_a_closed_connection(here: Insides):
    call = await held_call(here)
    swap = asyncio.create_task(here.connection.swap(here.node.svid))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await swap
    here.ca.orders.held.set()


async def test_a_call_that_takes_too_long_is_given_up(here: Insides):
    here.upstream._timeout = 0.05
    here.ca.orders.slow.add("GetBundle")
    here.ca.orders.held.clear()
    with pytest.raises(CaUnavailable, match="DEADLINE_EXCEEDED"):
        await here.upstream.bundle(TD)
    here.ca.orders.held.set()


async def held_call(here: Insides) -> asyncio.Task[None]:
    """A call that has reached the CA and waits there."""
    before = here.ca.calls["PostStatus"]
    here.ca.orders.slow.add("PostStatus")
    here.ca.orders.held.clear()
    call = asyncio.create_task(here.upstream.post_status(1, "held"))
    async with asyncio.timeout(10):
        while here.ca.calls["PostStatus"] == before:
            await asyncio.sleep(0.005)
    return call
