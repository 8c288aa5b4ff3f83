"""How an agent gets a certificate: by attestation, or by renewing the one it has.

Owns: the order of the steps and SPIRE's words for what goes wrong in each. Does not own: the stream (`agent`), the
methods of attestation (`attest`), the certificate (`issuance`).

Invariants: the node's row, the spending of a token and the record of the certificate are one transaction, so a lost
reply locks nobody out and a half-joined node does not exist. A banned node gets nothing, nor one that is known by
another name, also when that came to be between our look and the record. A renewed certificate stands beside the old
one until its first use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from livery.errors import Kind, LiveryError
from livery.identity import SpiffeId
from livery.runtime.audit import Audit
from livery.runtime.caller import Caller
from livery.runtime.clock import Clock
from livery.wire import agent_api, types_api
from livery_ca.attest import join_token
from livery_ca.attest.attestor import AttestationRefused, Attested, Challenge, Evidence, MalformedEvidence, NodeAttestor
from livery_ca.certificates.profile import Profile, PublicKey
from livery_ca.doors.messages import csrs
from livery_ca.doors.refusals import Denied, Failed, FailedPrecondition, InvalidArgument, Missing, Refusal, failing
from livery_ca.issuance.pipeline import Issuer
from livery_ca.issuance.request import Issued, IssueRequest, Refused
from livery_ca.model import Node
from livery_ca.store.errors import NodeBanned, NodeKnown, NodeNotFound, TokenRefused
from livery_ca.store.nodes import Nodes
from livery_ca.store.writes import AttestNode, RefuseKnown, RenewNode, Write

Params = agent_api.AttestAgentRequest.Params

_BANNED = "failed to attest: agent is banned"
_SIGNING = "failed to sign X509 SVID"
_LONGEST_KIND = 64  # characters of a method's name that are repeated; a stranger chooses it


@dataclass(frozen=True, slots=True)
class Joined:
    """A certificate for an agent, and whether it may attest again."""

    issued: Issued
    can_reattest: bool


class Joining:
    """Gives agents their certificates."""

    def __init__(
        self,
        attestors: Mapping[str, NodeAttestor],
        nodes: Nodes,
        issuer: Issuer,
        svid_ttl: timedelta,
        clock: Clock,
        audit: Audit,
    ) -> None:
        self._attestors = attestors
        self._nodes = nodes
        self._issuer = issuer
        self._svid_ttl = svid_ttl
        self._clock = clock
        self._audit = audit

    async def attest(self, params: Params, challenge: Challenge, caller: Caller) -> Joined:
        """Attest the node and issue its agent a certificate.

        1. The request is complete and its key is one we sign.
        2. The attestor vouches for it.
        3. The node is not banned, and not known by another name.
        4. Issue; node, token and record are written together.
        """
        kind = params.data.type
        told: dict[str, object] = {"attestor": kind[:_LONGEST_KIND], "address": caller.address}
        try:
            key = await csrs.read_key(params.params.csr, csrs.AGENT)  # 1
            evidence = Evidence(params.data.payload, csrs.key_hash(key), self._clock.now())
            attested = await self._judge(kind, evidence, challenge)  # 2
            told["agent"] = str(attested.agent_id)
            await self._refuse_known(attested)  # 3
        except Refusal as refusal:
            self._audit.record("node.attest", "refused", why=str(refusal), **told)
            raise
        self._audit.record("node.attest", "granted", **told)
        return Joined(await self._issue(_attestation(attested, kind, key, self._svid_ttl)), attested.can_reattest)  # 4

    async def renew(self, node: Node, csr: bytes) -> Issued:
        """Issue an agent that cannot attest again its next certificate."""
        if node.can_reattest:
            must = types_api.PermissionDeniedDetails.AGENT_MUST_REATTEST
            raise Denied("agent must reattest instead of renew", reason=must)
        key = await csrs.read_key(csr, csrs.AGENT)
        self._audit.record("node.renew", "granted", agent=str(node.id))
        return await self._issue(_renewal(node.id, key, self._svid_ttl))

    async def _judge(self, kind: str, evidence: Evidence, challenge: Challenge) -> Attested:
        attestor = self._attestors.get(kind)
        if attestor is None:
            why = f"could not find node attestor type {json.dumps(kind[:_LONGEST_KIND])}"
            raise FailedPrecondition("error getting node attestor", why=why)
        # SPIRE's server handles join tokens itself; its other attestors are plug-ins, and their errors say so.
        prefix = "" if kind == join_token.TYPE else f"nodeattestor({kind}): "
        try:
            with failing("failed to attest"):
                return await attestor.attest(evidence, challenge)
        except MalformedEvidence as error:
            raise InvalidArgument(prefix + error.what, why=error.why) from error
        except AttestationRefused as error:
            raise Denied(prefix + error.what, why=error.why) from error

    async def _refuse_known(self, attested: Attested) -> None:
        with failing("failed to fetch agent"):
            node = await self._nodes.get(attested.agent_id)
            twins = [await self._nodes.get(each) for each in attested.twins]
        if any(known.banned for known in (node, *twins) if known is not None):
            raise Denied(_BANNED)
        for twin in twins:
            if twin is not None:
                raise _joined_as(twin.id)

    async def _issue(self, request: IssueRequest) -> Issued:
        with failing(_SIGNING):
            (answer,) = await self._issuer.issue([request])
        if isinstance(answer, Refused):
            refusal = _in_words(answer.error)
            self._audit.record("node.certify", "failed", agent=str(request.spiffe_id), why=str(refusal))
            raise refusal from answer.error
        return answer


def _attestation(attested: Attested, kind: str, key: PublicKey, ttl: timedelta) -> IssueRequest:
    def on_record(issued: Issued) -> tuple[Write, ...]:
        node = Node(
            id=attested.agent_id,
            attestation_type=kind,
            serial=str(issued.serial),
            serial_expires_at=issued.not_after,
            can_reattest=attested.can_reattest,
            selectors=attested.selectors,
        )
        return (*attested.writes, RefuseKnown(attested.twins), AttestNode(node))

    return IssueRequest(
        profile=Profile.AGENT,
        spiffe_id=attested.agent_id,
        public_key=key,
        ttl=ttl,
        asked_by=str(attested.agent_id),
        authorized_by=f"attestation/{kind}",
        on_record=on_record,
    )


def _renewal(agent: SpiffeId, key: PublicKey, ttl: timedelta) -> IssueRequest:
    def on_record(issued: Issued) -> tuple[Write, ...]:
        return (RenewNode(agent, str(issued.serial), issued.not_after),)

    return IssueRequest(
        profile=Profile.AGENT,
        spiffe_id=agent,
        public_key=key,
        ttl=ttl,
        asked_by=str(agent),
        authorized_by="renewal",
        on_record=on_record,
    )


def _joined_as(twin: SpiffeId) -> Denied:
    why = f"{twin} joined with the same evidence in another form; evict it to let this one in"
    return Denied("failed to attest", why=why)


def _in_words(error: LiveryError) -> Refusal:
    """Why the record was refused, in SPIRE's words: the node or its token changed since we looked."""
    match error:
        case NodeBanned():
            return Denied(_BANNED)
        case NodeKnown():
            return _joined_as(error.id)
        case NodeNotFound():
            return Missing("agent not found")
        case TokenRefused():
            return InvalidArgument(join_token.refusal(error).what)
    return InvalidArgument(_SIGNING, why=str(error)) if error.kind is Kind.INVALID else Failed(_SIGNING, why=str(error))
