"""The order of an attestation, and what is said when the record is refused at its very end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from livery.errors import LiveryError
from livery.identity import SpiffeId
from livery.wire import agent_api, types_api
from livery_ca.attest.attestor import Attested, Challenge, Evidence
from livery_ca.certificates.profile import Profile
from livery_ca.doors import agent
from livery_ca.doors.joining import Joining
from livery_ca.doors.messages import csrs
from livery_ca.doors.refusals import Denied, Failed, FailedPrecondition, InvalidArgument, Missing, Refusal
from livery_ca.issuance.errors import NotSound
from livery_ca.issuance.request import Issued, IssueRequest, Refused
from livery_ca.model import Node
from livery_ca.store.errors import NodeBanned, NodeKnown, NodeNotFound, StoreUnavailable, TokenExpired, TokenUsed
from livery_ca.store.writes import AttestNode, RefuseKnown, RenewNode, SpendToken, Write
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import START, FakeClock
from tests.fakes.node_agent import new_csr, new_key
from tests.unit.ca.doors.values import a_node, an_id, over_tcp

AGENT = an_id("/spire/agent/test/one")
TWIN = an_id("/spire/agent/test/one-in-another-form")
SPENDING = SpendToken("token", b"k" * 32, START)


@dataclass
class FakeIssuer:
    """Issues without signing; refuses with `error`, or fails as a whole with `outage`."""

    error: LiveryError | None = None
    outage: LiveryError | None = None
    asked: list[IssueRequest] = field(default_factory=list)
    written: list[Write] = field(default_factory=list)

    async def issue(self, requests: Sequence[IssueRequest]) -> list[Issued | Refused]:
        self.asked += requests
        if self.outage is not None:
            raise self.outage
        return [Refused(self.error) if self.error else self._issued(each) for each in requests]

    def _issued(self, request: IssueRequest) -> Issued:
        issued = Issued(77, request.spiffe_id, (b"leaf",), START, START + request.ttl, 0)
        self.written += request.on_record(issued) if request.on_record else ()
        return issued


class Vouching:
    """An attestor that vouches for everybody, and remembers the evidence."""

    type = "test"

    def __init__(self) -> None:
        self.evidence: list[Evidence] = []

    async def attest(self, evidence: Evidence, challenge: Challenge) -> Attested:
        self.evidence.append(evidence)
        return Attested(AGENT, can_reattest=True, writes=(SPENDING,), twins=(TWIN,))


class NodeRows:
    """Nodes in a dictionary, or a store that is away."""

    def __init__(self, *nodes: Node) -> None:
        self.by_id = {node.id: node for node in nodes}
        self.away = False

    async def get(self, node_id: SpiffeId) -> Node | None:
        if self.away:
            raise StoreUnavailable("the store did not answer")
        return self.by_id.get(node_id)


class Scene:
    def __init__(self, *nodes: Node, error: LiveryError | None = None, outage: LiveryError | None = None) -> None:
        self.issuer = FakeIssuer(error, outage)
        self.attestor, self.nodes, self.audit = Vouching(), NodeRows(*nodes), RecordingAudit()
        parts = ({"test": self.attestor}, self.nodes, self.issuer)
        self.joining = Joining(*parts, timedelta(minutes=30), FakeClock(), self.audit)  # type: ignore[arg-type]

    async def attest(self, kind: str = "test", csr: bytes = b"") -> Issued:
        params = agent_api.AttestAgentRequest.Params(
            data=types_api.AttestationData(type=kind, payload=b"evidence"),
            params=agent_api.AgentX509SVIDParams(csr=csr or new_csr(new_key())),
        )

        async def nobody(_challenge: bytes) -> bytes:
            raise AssertionError("not challenged")

        return (await self.joining.attest(params, nobody, over_tcp())).issued

    async def refusal(self) -> Refusal:
        with pytest.raises(Refusal) as refused:
            await self.attest()
        return refused.value


async def test_node_token_and_certificate_are_written_together() -> None:
    scene = Scene()
    issued = await scene.attest()
    spending, refusing, attesting = scene.issuer.written
    assert (spending, refusing) == (SPENDING, RefuseKnown((TWIN,)))
    assert isinstance(attesting, AttestNode)
    assert (attesting.node.id, attesting.node.serial, attesting.node.serial_expires_at) == (
        AGENT,
        "77",
        issued.not_after,
    )
    (request,) = scene.issuer.asked
    assert (request.profile, request.ttl) == (Profile.AGENT, timedelta(minutes=30))
    assert request.authorized_by == "attestation/test"


async def test_the_attestor_is_told_the_hash_of_the_key_that_will_be_certified() -> None:
    scene, key = Scene(), new_key()
    await scene.attest(csr=new_csr(key))
    assert scene.attestor.evidence[0].key_hash == csrs.key_hash(key.public_key())
    assert scene.issuer.asked[0].public_key == key.public_key()


async def test_a_csr_that_is_none_never_reaches_the_attestor() -> None:
    scene = Scene()
    with pytest.raises(InvalidArgument, match="failed to parse CSR"):
        await scene.attest(csr=b"garbage")
    assert scene.attestor.evidence == []
    assert scene.audit.of("node.attest")[0]["outcome"] == "refused"


async def test_a_method_that_is_not_here_is_named_within_bounds() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await Scene().attest(kind='x"\n' * 1000)
    assert str(refused.value).startswith('error getting node attestor: could not find node attestor type "x\\"\\n')
    assert len(str(refused.value)) < 250


async def test_of_a_methods_name_that_a_stranger_chose_little_is_written_down() -> None:
    scene = Scene()
    with pytest.raises(FailedPrecondition):
        await scene.attest(kind="x" * 1_000_000)
    assert scene.audit.of("node.attest")[0]["attestor"] == "x" * 64


@pytest.mark.parametrize(
    ("serial", "text"),
    [
        ("", "failed to attest: agent is banned"),
        (
            "7",
            f"failed to attest: {TWIN} joined with the same evidence in another form; evict it to let this one in",
        ),
    ],
)
async def test_a_node_that_is_known_by_another_form_of_its_evidence_is_not_certified(serial: str, text: str) -> None:
    scene = Scene(a_node(TWIN.path, serial=serial))
    refused = await scene.refusal()
    assert (type(refused), str(refused)) == (Denied, text)
    assert scene.issuer.asked == []


async def test_a_banned_node_is_not_certified() -> None:
    scene = Scene(a_node(AGENT.path, serial=""))
    assert str(await scene.refusal()) == "failed to attest: agent is banned"
    assert scene.issuer.asked == []


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (NodeBanned("banned meanwhile"), Denied, "failed to attest: agent is banned"),
        (
            NodeKnown(TWIN),
            Denied,
            f"failed to attest: {TWIN} joined with the same evidence in another form; evict it to let this one in",
        ),
        (
            TokenUsed("by another key meanwhile"),
            InvalidArgument,
            "failed to attest: join token does not exist or has already been used",
        ),
        (TokenExpired("meanwhile"), InvalidArgument, "join token expired"),
        (NodeNotFound("evicted meanwhile"), Missing, "agent not found"),
        (NotSound("it did not verify"), Failed, "failed to sign X509 SVID: it did not verify"),
    ],
)
async def test_what_changed_since_we_looked_is_told_in_the_words_of_the_look(
    error: LiveryError, kind: type[Refusal], text: str
) -> None:
    scene = Scene(error=error)
    refused = await scene.refusal()
    assert (type(refused), str(refused)) == (kind, text)
    assert scene.audit.of("node.certify")[0]["outcome"] == "failed"


async def test_a_store_that_is_away_is_our_fault() -> None:
    scene = Scene()
    scene.nodes.away = True
    assert str(await scene.refusal()) == "failed to fetch agent: the store did not answer"
    scene = Scene(outage=StoreUnavailable("the store did not answer"))
    assert str(await scene.refusal()) == "failed to sign X509 SVID: the store did not answer"


async def test_a_renewal_stands_beside_the_current_certificate() -> None:
    scene = Scene()
    node = a_node(AGENT.path, serial="7", can_reattest=False)
    issued = await scene.joining.renew(node, new_csr(new_key()))
    assert scene.issuer.written == [RenewNode(AGENT, "77", issued.not_after)]


async def test_who_can_attest_again_does_not_renew() -> None:
    scene = Scene()
    with pytest.raises(Denied, match="agent must reattest instead of renew") as refused:
        await scene.joining.renew(a_node(AGENT.path), new_csr(new_key()))
    assert refused.value.reason == types_api.PermissionDeniedDetails.AGENT_MUST_REATTEST
    assert scene.issuer.asked == []


async def test_nothing_is_certified_that_cannot_be_audited() -> None:
    scene = Scene()
    scene.audit.broken = True
    with pytest.raises(LiveryError):
        await scene.attest()
    assert scene.issuer.asked == []


async def test_a_stranger_who_opens_the_stream_and_says_nothing_is_not_waited_for() -> None:
    async def silence() -> AsyncIterator[agent_api.AttestAgentRequest]:
        await asyncio.Event().wait()
        yield agent_api.AttestAgentRequest()

    with pytest.raises(InvalidArgument, match="failed to receive request from stream"):
        await agent._next(silence(), patience=0.01)
