"""The CA seen from here: each RPC this node needs as one method that takes and returns values.

Owns: time-outs, the translation of failures (`refusals`), and repeating a call whose connection was replaced under it.
Does not own: the connection (`connection`), back-off and what to ask for when (`keeper`).

Invariant: a refusal that reaches the caller was made on the connection that is current. AGENT_NOT_ACTIVE on a
superseded connection says nothing about this node (hazard 23): such a call is repeated, not obeyed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import grpc.aio

from livery.identity import IdentityError, JwtSvid, TrustBundle, TrustDomain
from livery.runtime.completion import whole
from livery.wire import agent_api, bundle_api, entry_api, svid_api
from livery_agent.errors import AgentError, CaAnswerUnusable, CaUnavailable, NodeRefused
from livery_agent.identities.entry import Entry
from livery_agent.upstream import joining, sync
from livery_agent.upstream.connection import CaConnection, CaDialer, Line, opened
from livery_agent.upstream.conversation import Conversation
from livery_agent.upstream.joining import Issued, Joined, JoinRequest
from livery_agent.upstream.refusals import failure_of, is_missing, is_unknown

T = TypeVar("T")

MAX_ATTEMPTS = 3
CONVERSATION = 4  # a conversation may take this many times as long as a call

# Items of a batch that failed in a way which may pass: SPIRE answers Internal for "failed to sign".
_PASSING = frozenset(
    {
        grpc.StatusCode.INTERNAL.value[0],
        grpc.StatusCode.UNAVAILABLE.value[0],
        grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
        grpc.StatusCode.DEADLINE_EXCEEDED.value[0],
        grpc.StatusCode.UNKNOWN.value[0],
        grpc.StatusCode.ABORTED.value[0],
    }
)

JoinDial = Callable[[TrustBundle | None], CaDialer]
"""A dialer that presents nothing and trusts this bundle; without a bundle (dangerous) it compares the CA's ID alone."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """One SVID to sign, for one entry."""

    entry_id: str
    csr: bytes


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Why one item of a batch was not signed. `passing`: it may be at the next attempt."""

    why: str
    passing: bool


class Upstream:
    """The CA, by the connection that is current."""

    def __init__(self, connection: CaConnection, join_dial: JoinDial, timeout: timedelta) -> None:
        self._connection = connection
        self._join_dial = join_dial
        self._patience = timeout
        self._timeout = timeout.total_seconds()

    async def join(self, request: JoinRequest, trusted: TrustBundle | None) -> Joined:
        """Attest this node over a connection of its own; `trusted` is None only for an insecure bootstrap."""
        dialer = self._join_dial(trusted)
        try:
            channel = await whole(opened(dialer))
            return await joining.join(channel, request, self._timeout)
        except grpc.aio.AioRpcError as error:
            raise failure_of("this node could not attest", error, dialer.last_refusal) from error
        finally:
            await whole(dialer.close())

    async def renew(self, csr: bytes) -> Issued:
        """A new SVID for this node; the CA drops the old one at the first use of the new one."""
        request = agent_api.RenewAgentRequest(params=agent_api.AgentX509SVIDParams(csr=csr))
        answer = await self._call(
            "this node's certificate could not be renewed",
            lambda line: agent_api.AgentStub(line.channel).RenewAgent(request, timeout=self._timeout),
        )
        return joining.issued_from_wire(answer.svid)

    async def post_status(self, bundle_sequence: int, agent_version: str) -> None:
        """Acknowledge the bundle this node now uses; a CA without this method (older SPIRE servers) is not told."""
        request = agent_api.PostStatusRequest(current_bundle_serial=bundle_sequence, agent_version=agent_version)

        async def tell(line: Line) -> None:
            try:
                await agent_api.AgentStub(line.channel).PostStatus(request, timeout=self._timeout)
            except grpc.aio.AioRpcError as error:
                if not is_unknown(error):
                    raise

        await self._call("this node's status could not be posted", tell)

    async def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
        """The bundle of our own trust domain."""
        answer = await self._call(
            "the bundle could not be fetched",
            lambda line: bundle_api.BundleStub(line.channel).GetBundle(
                bundle_api.GetBundleRequest(), timeout=self._timeout
            ),
        )
        return joining.read_bundle(answer, trust_domain)

    async def federated_bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """The bundle of another trust domain; None if the CA has none (not yet, or no longer)."""
        request = bundle_api.GetFederatedBundleRequest(trust_domain=str(trust_domain))

        async def ask(line: Line) -> TrustBundle | None:
            try:
                answer = await bundle_api.BundleStub(line.channel).GetFederatedBundle(request, timeout=self._timeout)
            except grpc.aio.AioRpcError as error:
                if is_missing(error):
                    return None
                raise
            return joining.read_bundle(answer, trust_domain)

        return await self._call(f"the bundle of {trust_domain} could not be fetched", ask)

    async def entries(self, known: Mapping[str, Entry]) -> tuple[Entry, ...]:
        """Every entry this node is authorized for; what is `known` and unchanged is not sent again."""

        async def ask(line: Line) -> tuple[Entry, ...]:
            call = entry_api.EntryStub(line.channel).SyncAuthorizedEntries(timeout=self._timeout * CONVERSATION)
            try:
                return await sync.converse(Conversation(call), known)
            finally:
                call.cancel()

        return await self._call("the entries could not be fetched", ask)

    async def sign(self, requests: Sequence[SigningRequest]) -> list[Issued | Unsigned]:
        """One answer for each request, in order."""
        params = [svid_api.NewX509SVIDParams(entry_id=r.entry_id, csr=r.csr) for r in requests]
        message = svid_api.BatchNewX509SVIDRequest(params=params)
        answer = await self._call(
            "SVIDs could not be renewed",
            lambda line: svid_api.SVIDStub(line.channel).BatchNewX509SVID(message, timeout=self._timeout),
        )
        if len(answer.results) != len(requests):
            why = f"{len(answer.results)} results for {len(requests)} requests"
            raise CaAnswerUnusable("the CA's answer does not fit what was asked", why=why)
        return [_read_result(result) for result in answer.results]

    async def jwt_svid(self, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """A JWT-SVID of the entry's identity for this audience."""
        request = svid_api.NewJWTSVIDRequest(entry_id=entry_id, audience=audience)
        answer = await self._call(
            "the JWT-SVID could not be fetched",
            lambda line: svid_api.SVIDStub(line.channel).NewJWTSVID(request, timeout=self._timeout),
        )
        try:
            return JwtSvid.parse_unverified(answer.svid.token)
        except IdentityError as cause:
            raise CaAnswerUnusable("the CA's JWT-SVID cannot be read", why=str(cause)) from cause

    async def _call(self, what: str, do: Callable[[Line], Awaitable[T]]) -> T:
        """Do it on the current line; again on the next one if that line was replaced meanwhile."""
        for _ in range(MAX_ATTEMPTS):
            failure: AgentError | None = None
            async with self._connection.line(self._patience) as line:
                try:
                    return await do(line)
                except grpc.aio.AioRpcError as error:
                    failure = failure_of(what, error, self._connection.last_refusal)
                    failure.__cause__ = error
                except asyncio.CancelledError:
                    # Closing a channel cancels its calls, which looks like being cancelled ourselves.
                    task = asyncio.current_task()
                    if not self._connection.is_superseded(line) or (task is not None and task.cancelling()):
                        raise
            if isinstance(failure, NodeRefused):
                # An attestation may be under way that has made this line's SVID void. Nothing holds the line by now.
                await self._connection.decided()
            if failure is not None and not self._connection.is_superseded(line):
                raise failure
        raise CaUnavailable(what, why="the connection was replaced again and again")


def _read_result(result: svid_api.BatchNewX509SVIDResponse.Result) -> Issued | Unsigned:
    if result.status.code:
        return Unsigned(result.status.message[:300], passing=result.status.code in _PASSING)
    try:
        return joining.issued_from_wire(result.svid)
    except CaAnswerUnusable as error:
        return Unsigned(str(error), passing=True)
