"""How a node joins its trust domain: the conversation `AttestAgent`, and the first bundle on the same connection.

Owns: the message order and what is taken from the answers. Does not own: the evidence (`attest.node`), keeping what was
received (`node`), or whether it verifies (`acceptance`).
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc.aio
from cryptography import x509

from livery.identity import IdentityError, SpiffeId, TrustBundle, TrustDomain, parse_chain
from livery.runtime.spire_types import bundle_from_wire, spiffe_id_from_wire
from livery.wire import agent_api, bundle_api, types_api
from livery_agent.attest.node.attestor import NodeProof
from livery_agent.errors import CaAnswerUnusable
from livery_agent.upstream.conversation import Conversation

MAX_CHALLENGES = 16


@dataclass(frozen=True, slots=True)
class Issued:
    """A chain the CA sent, parsed and not yet verified, and the ID it says the chain is for."""

    id: SpiffeId
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """What a successful attestation gives: the node's certificate and, from the same connection, the bundle."""

    issued: Issued
    reattestable: bool
    bundle: TrustBundle


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """One attempt: which method, its evidence, and the request for a certificate."""

    method: str
    proof: NodeProof
    csr: bytes


async def join(channel: grpc.aio.Channel, request: JoinRequest, timeout: float) -> Joined:
    """Attest over this (anonymous) channel, answering what the CA asks, and fetch the bundle."""
    conversation = Conversation(agent_api.AgentStub(channel).AttestAgent(timeout=timeout))
    await conversation.say(
        agent_api.AttestAgentRequest(
            params=agent_api.AttestAgentRequest.Params(
                data=types_api.AttestationData(type=request.method, payload=request.proof.payload),
                params=agent_api.AgentX509SVIDParams(csr=request.csr),
            )
        )
    )
    for _ in range(MAX_CHALLENGES):
        answer = await conversation.hear()
        if answer is None:
            raise CaAnswerUnusable("the CA ended the attestation without a result")
        if answer.HasField("result"):
            await conversation.finish_saying()
            issued = issued_from_wire(answer.result.svid)
            bundle = await bundle_api.BundleStub(channel).GetBundle(bundle_api.GetBundleRequest(), timeout=timeout)
            return Joined(issued, answer.result.reattestable, read_bundle(bundle, issued.id.trust_domain))
        response = request.proof.answer(answer.challenge)
        await conversation.say(agent_api.AttestAgentRequest(challenge_response=response))
    raise CaAnswerUnusable("the CA would not stop asking", why=f"more than {MAX_CHALLENGES} challenges")


def issued_from_wire(svid: types_api.X509SVID) -> Issued:
    """The chain and ID of an SVID on the wire; raises `CaAnswerUnusable`."""
    try:
        return Issued(spiffe_id_from_wire(svid.id), parse_chain(b"".join(svid.cert_chain)))
    except IdentityError as cause:
        raise CaAnswerUnusable("the CA's certificate cannot be read", why=str(cause)) from cause


def read_bundle(message: types_api.Bundle, expected: TrustDomain) -> TrustBundle:
    """The bundle on the wire, which must be that of the expected trust domain; raises `CaAnswerUnusable`."""
    try:
        bundle = bundle_from_wire(message)
    except IdentityError as cause:
        raise CaAnswerUnusable(f"the CA's bundle of {expected} cannot be read", why=str(cause)) from cause
    if bundle.trust_domain != expected:
        raise CaAnswerUnusable(f"the CA sent a bundle of {bundle.trust_domain}", why=f"asked for {expected}")
    return bundle
