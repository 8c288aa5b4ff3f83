"""The Agent service: how nodes join, stay, and are turned away.

Owns: `spire.api.server.agent.v1.Agent`, all of it, but for the joining itself (`joining`). Does not own: rows
(`store.nodes`, `store.tokens`), forms (`node_form`).

Invariant: a token is shown in full to the administrator who creates it, and to nobody else.
"""
# ruff: noqa: N802, ARG002 - methods and parameters are the wire's

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpc.aio import ServicerContext

from livery.identity import Selector, SpiffeId, TrustDomain
from livery.runtime.audit import Audit
from livery.runtime.caller import caller_of
from livery.runtime.clock import Clock
from livery.wire import agent_api, types_api
from livery_ca.attest.join_token import agent_of
from livery_ca.doors.guard.gate import admission_of
from livery_ca.doors.guard.limits import Limits
from livery_ca.doors.joining import Joining
from livery_ca.doors.messages import ids, node_form, paging
from livery_ca.doors.messages.presence import given
from livery_ca.doors.messages.svid_form import x509_to_wire
from livery_ca.doors.refusals import Failed, InvalidArgument, Missing, failing, malformed
from livery_ca.model import Entry, JoinToken, Node
from livery_ca.store.errors import NodeNotFound, Taken
from livery_ca.store.nodes import ALIAS_SELECTOR, Nodes
from livery_ca.store.tokens import Tokens

Context = ServicerContext[Any, Any]
Mask = types_api.AgentMask

_NamesAgent = agent_api.GetAgentRequest | agent_api.DeleteAgentRequest | agent_api.BanAgentRequest

MAX_AGENT_VERSION = 255  # bytes
ANSWER_SECONDS = 30.0  # how long an agent may take for each message of its attestation
_SERVICE = "/spire.api.server.agent.v1.Agent/"


@dataclass(frozen=True, slots=True)
class AgentDoor(agent_api.AgentServicer):
    """Answers for the nodes."""

    ours: TrustDomain
    nodes: Nodes
    tokens: Tokens
    joining: Joining
    limits: Limits
    clock: Clock
    audit: Audit
    patience: float = ANSWER_SECONDS

    async def AttestAgent(
        self, request_iterator: AsyncIterator[agent_api.AttestAgentRequest], context: Context
    ) -> AsyncIterator[agent_api.AttestAgentResponse]:
        """Params first, then challenges and answers as the attestor wants, then the result."""
        what = "rejecting request due to attest agent rate limiting"
        await self.limits.turn(context, f"{_SERVICE}AttestAgent", what)
        params = _checked(await _next(request_iterator, self.patience))

        async def challenge(data: bytes) -> bytes:
            await context.write(agent_api.AttestAgentResponse(challenge=data))
            return (await _next(request_iterator, self.patience)).challenge_response

        joined = await self.joining.attest(params, challenge, caller_of(context))
        yield agent_api.AttestAgentResponse(
            result=agent_api.AttestAgentResponse.Result(
                svid=x509_to_wire(joined.issued), reattestable=joined.can_reattest
            )
        )

    async def RenewAgent(self, request: agent_api.RenewAgentRequest, context: Context) -> agent_api.RenewAgentResponse:
        """A new certificate beside the one in use, which counts from its own first use on."""
        await self.limits.turn(context, f"{_SERVICE}RenewAgent", "rejecting request due to renew agent rate limiting")
        node = _node_of(context)
        if not node.can_reattest:
            if not request.HasField("params"):
                raise InvalidArgument("params cannot be nil")
            if not request.params.csr:
                raise InvalidArgument("missing CSR")
        return agent_api.RenewAgentResponse(svid=x509_to_wire(await self.joining.renew(node, request.params.csr)))

    async def PostStatus(self, request: agent_api.PostStatusRequest, context: Context) -> agent_api.PostStatusResponse:
        """What an agent says of itself: its version, and the bundle it has."""
        await self.limits.turn(context, f"{_SERVICE}PostStatus", "rejecting request due to post status rate limiting")
        node = _node_of(context)
        version = request.agent_version or node.agent_version
        if len(version.encode()) > MAX_AGENT_VERSION:
            raise InvalidArgument("agent version is too long (max 255 characters)")
        if not version.isprintable():  # it is shown to administrators
            raise InvalidArgument("agent version holds characters that cannot be printed")
        sequence = request.current_bundle_serial or node.bundle_sequence
        if (version, sequence) != (node.agent_version, node.bundle_sequence):
            with failing("failed to update agent"), _found():
                await self.nodes.report(node.id, version, sequence)
        return agent_api.PostStatusResponse()

    async def CountAgents(
        self, request: agent_api.CountAgentsRequest, context: Context
    ) -> agent_api.CountAgentsResponse:
        """How many nodes pass the filter."""
        wanted = node_form.read_filter(given(request, "filter", agent_api.CountAgentsRequest.Filter))
        with failing("failed to count agents"):
            return agent_api.CountAgentsResponse(count=await self.nodes.count(wanted))

    async def ListAgents(self, request: agent_api.ListAgentsRequest, context: Context) -> agent_api.ListAgentsResponse:
        """The nodes that pass the filter, in pages."""
        page = paging.read_page(request.page_size, request.page_token)
        wanted = node_form.read_filter(given(request, "filter", agent_api.ListAgentsRequest.Filter))
        with failing("failed to list agents"):
            listing = await self.nodes.list(wanted, page)
        mask = given(request, "output_mask", Mask)
        found = [node_form.write(node, mask) for node in listing.items]
        return agent_api.ListAgentsResponse(agents=found, next_page_token=paging.next_token(page, listing))

    async def GetAgent(self, request: agent_api.GetAgentRequest, context: Context) -> types_api.Agent:
        """One node."""
        agent = self._agent_id(request)
        with failing("failed to fetch agent"):
            node = await self.nodes.get(agent)
        if node is None:
            raise Missing("agent not found")
        return node_form.write(node, given(request, "output_mask", Mask))

    async def DeleteAgent(self, request: agent_api.DeleteAgentRequest, context: Context) -> Empty:
        """Forget a node. It may attest again if its method allows."""
        agent = self._agent_id(request)
        self.audit.record("node.delete", "granted", agent=str(agent), caller=admission_of(context).asked_by)
        with failing("failed to remove agent"), _found():
            await self.nodes.delete(agent)
        return Empty()

    async def BanAgent(self, request: agent_api.BanAgentRequest, context: Context) -> Empty:
        """Keep a node out until it is deleted."""
        agent = self._agent_id(request)
        self.audit.record("node.ban", "granted", agent=str(agent), caller=admission_of(context).asked_by)
        with failing("failed to ban agent"), _found():
            await self.nodes.ban(agent)
        return Empty()

    async def CreateJoinToken(self, request: agent_api.CreateJoinTokenRequest, context: Context) -> types_api.JoinToken:
        """A secret by which one node may join; with an ID, also the alias its agent will have."""
        if request.ttl < 1:
            raise InvalidArgument("ttl is required, you must provide one")
        now = self.clock.now()
        value = request.token or str(uuid.uuid4())
        with malformed("invalid agent ID"):
            alias = ids.workload_id(request.agent_id, self.ours) if request.HasField("agent_id") else None
        with malformed("invalid token"):
            agent = agent_of(self.ours, value)
        token = JoinToken(value, now + timedelta(seconds=request.ttl))
        self.audit.record(
            "token.create",
            "granted",
            agent=token.redacted,
            expires_at=token.expires_at.isoformat(),
            spiffe_id=None if alias is None else str(alias),
            caller=admission_of(context).asked_by,
        )
        try:
            with failing("failed to create token"):
                await self.tokens.create(token, None if alias is None else _alias(agent, alias, now))
        except Taken as cause:
            raise Failed("failed to create token", why="it exists already") from cause
        return types_api.JoinToken(value=value, expires_at=int(token.expires_at.timestamp()))

    def _agent_id(self, request: _NamesAgent) -> SpiffeId:
        with malformed("invalid agent ID"):
            return ids.agent_id(given(request, "id", types_api.SPIFFEID), self.ours)


async def _next(requests: AsyncIterator[agent_api.AttestAgentRequest], patience: float) -> agent_api.AttestAgentRequest:
    """The agent's next message. A stranger who opened the stream does not keep it by saying nothing."""
    try:
        async with asyncio.timeout(patience):
            return await anext(requests)
    except (StopAsyncIteration, TimeoutError) as cause:
        raise InvalidArgument("failed to receive request from stream") from cause


def _checked(request: agent_api.AttestAgentRequest) -> agent_api.AttestAgentRequest.Params:
    params = given(request, "params", agent_api.AttestAgentRequest.Params)
    if params is None:
        raise InvalidArgument("malformed param", why="missing params")
    faults = (
        (not params.HasField("data"), "missing attestation data"),
        (not params.HasField("params"), "missing X509-SVID parameters"),
        (not params.params.csr, "missing CSR"),
        (not params.data.type, "missing attestation data type"),
        (not params.data.payload, "missing attestation data payload"),
    )
    for wrong, why in faults:
        if wrong:
            raise InvalidArgument("malformed param", why=why)
    return params


def _node_of(context: Context) -> Node:
    node = admission_of(context).node
    if node is None:
        raise Failed("caller ID missing from request context")
    return node


def _alias(agent: SpiffeId, alias: SpiffeId, at: datetime) -> Entry:
    """The entry by which the agent that joins with this token is also known as `alias`; it goes when the node goes."""
    selectors = (Selector(ALIAS_SELECTOR, str(agent)),)
    return Entry(str(uuid.uuid4()), alias, agent, selectors, created_at=at.replace(microsecond=0))


@contextmanager
def _found() -> Iterator[None]:
    try:
        yield
    except NodeNotFound as cause:
        raise Missing("agent not found") from cause
