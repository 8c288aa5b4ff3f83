"""The SPIFFE Workload API: identities and bundles for the processes of this machine.

Owns: the RPCs (Fetch{X509SVID,X509Bundles,JWTSVID,JWTBundles}, ValidateJWTSVID), their streams, and the texts that
SPIRE fixes. Does not own: who calls (the front door and `attest.workload`), what they may have
(`identities.entitlement`), or how it looks on the wire (`messages`).

Invariants:
- Every call carries the security header, and its caller was attested.
- The process is looked at again before every message: alive, the same program, the same user (hazard 13).
- Every call holds a place from before its caller is looked at, and a stream has no queue. A client that takes no update
  for too long loses its stream and nothing else happens.
- Every SVID that leaves has an audit record first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar, cast

import grpc.aio
from google.protobuf.message import Message

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, IdentityError, InvalidSpiffeId, JwtSvid, SpiffeId, verify_jwt
from livery.runtime.audit import Audit
from livery.runtime.caller import PeerProcess
from livery.runtime.clock import Clock
from livery.wire import workload_api
from livery_agent.attest.workload.attestation import WorkloadAttestation
from livery_agent.attest.workload.unix import require_same
from livery_agent.doors import messages
from livery_agent.doors.places import Places
from livery_agent.errors import AgentError
from livery_agent.identities.entitlement import (
    Attested,
    Bundles,
    Denied,
    Identities,
    NotNow,
    Pending,
    bundles_for,
    identities_for,
)
from livery_agent.identities.entry import Entry
from livery_agent.identities.jwt_svids import JwtSvids
from livery_agent.identities.snapshot import Snapshot, Snapshots

HEADER = "workload.spiffe.io"

Context = grpc.aio.ServicerContext[Message, Message]
A = TypeVar("A", Identities, Bundles)


class BadCall(AgentError):
    """The request is wrong: mend it, do not retry."""

    code = "bad_call"
    kind = Kind.INVALID


class NoIdentity(AgentError):
    """No entry describes the caller."""

    code = "no_identity"
    kind = Kind.DENIED


class NotAvailable(AgentError):
    """There will be an answer, but not now."""

    code = "not_available"
    kind = Kind.UNAVAILABLE


class SlowReader(AgentError):
    """The client did not take an update in time; it may connect again."""

    code = "slow_reader"
    kind = Kind.UNAVAILABLE


class NotOffered(AgentError):
    """A part of the Workload API that this agent does not offer."""

    code = "not_offered"
    kind = Kind.UNIMPLEMENTED


@dataclass(frozen=True, slots=True)
class Workload:
    """A caller: the process, and what was attested about it."""

    process: PeerProcess
    attested: Attested


@dataclass(frozen=True, slots=True)
class DoorParts:
    """What the Workload API works with. `strangers`: bundles also for callers without an identity."""

    snapshots: Snapshots
    jwt_svids: JwtSvids
    attestation: WorkloadAttestation
    streams: Places
    requests: Places
    clock: Clock
    audit: Audit
    strangers: bool
    write_timeout: timedelta


class WorkloadApi:
    """The service `SpiffeWorkloadAPI`. Nothing may ever be added to it (SPIFFE Workload API 2)."""

    def __init__(self, parts: DoorParts) -> None:
        self._p = parts

    def add_to(self, server: grpc.aio.Server) -> None:
        """Offer the service on a server."""
        # A cast, since the generated class knows streams as generators only; ours write, to see who does not read.
        workload_api.add_SpiffeWorkloadAPIServicer_to_server(
            cast("workload_api.SpiffeWorkloadAPIServicer", self), server
        )

    # X.509

    async def FetchX509SVID(self, request: workload_api.X509SVIDRequest, context: Context) -> None:  # noqa: N802, ARG002
        """Stream the caller's X.509-SVIDs: at once, and again after every change."""
        clock = self._p.clock
        await self._stream(context, lambda s, w: identities_for(s, w.attested, clock.now()), self._render_x509_svids)

    async def FetchX509Bundles(self, request: workload_api.X509BundlesRequest, context: Context) -> None:  # noqa: N802, ARG002
        """Stream the bundles by which X.509-SVIDs are verified."""
        await self._stream(context, self._bundles, lambda _, answer: messages.x509_bundles(answer))

    # JWT

    async def FetchJWTSVID(  # noqa: N802
        self, request: workload_api.JWTSVIDRequest, context: Context
    ) -> workload_api.JWTSVIDResponse:
        """JWT-SVIDs for an audience: of all the caller's identities, or of the one named."""
        _require_header(context)
        if not request.audience or not all(request.audience):
            raise BadCall("audience must be specified")
        wanted = _parsed_id(request.spiffe_id) if request.spiffe_id else None
        async with self._attested(context, self._p.requests) as workload:
            entries = self._entries(workload, wanted)
            tokens = await self._tokens(entries, request.audience)
            require_same(workload.process)
            self._record("jwt_svid.serve", workload, [str(entry.spiffe_id) for entry in entries])
            return messages.jwt_svids(list(zip(entries, tokens, strict=True)))

    async def FetchJWTBundles(self, request: workload_api.JWTBundlesRequest, context: Context) -> None:  # noqa: N802, ARG002
        """Stream the bundles by which JWT-SVIDs are verified."""
        await self._stream(context, self._bundles, lambda _, answer: messages.jwt_bundles(answer))

    async def ValidateJWTSVID(  # noqa: N802
        self, request: workload_api.ValidateJWTSVIDRequest, context: Context
    ) -> workload_api.ValidateJWTSVIDResponse:
        """Verify a JWT-SVID for the caller, by the bundles the caller may have."""
        _require_header(context)
        if not request.audience:
            raise BadCall("audience must be specified")
        if not request.svid:
            raise BadCall("svid must be specified")
        async with self._attested(context, self._p.requests) as workload:
            # Whoever can reach this socket may ask whether a token is true: the answer holds what the token holds.
            bundles = bundles_for(self._p.snapshots.current, workload.attested, strangers=True)
        if not isinstance(bundles, Bundles):
            raise NotAvailable("no bundle to verify with", why=bundles.why if isinstance(bundles, NotNow) else "")
        known = BundleMap.of(bundles.own, *bundles.federated)
        try:
            svid = verify_jwt(request.svid, known, request.audience, self._p.clock.now())
            return messages.validated(svid, foreign=not svid.id.member_of(bundles.own.trust_domain))
        except (IdentityError, ValueError) as cause:
            raise BadCall(str(cause)) from cause

    # WIT: not offered by this agent (SPIFFE Workload API 7: Unimplemented)

    async def FetchWITSVID(self, request: workload_api.WITSVIDRequest, context: Context) -> NoReturn:  # noqa: N802, ARG002
        """WIT-SVIDs are not offered."""
        raise NotOffered("WIT-SVIDs are not offered by this agent")

    async def FetchWITBundles(self, request: workload_api.WITBundlesRequest, context: Context) -> NoReturn:  # noqa: N802, ARG002
        """WIT bundles are not offered."""
        raise NotOffered("WIT-SVIDs are not offered by this agent")

    # The steps all calls share

    @asynccontextmanager
    async def _attested(self, context: Context, places: Places) -> AsyncIterator[Workload]:
        """Who calls, in a place for the length of the call: to be looked at takes time too, and others may be first."""
        with places.place(context) as process:
            yield Workload(process, await self._p.attestation.selectors(process))

    async def _stream(
        self,
        context: Context,
        decide: Callable[[Snapshot, Workload], A | Pending | NotNow | Denied],
        render: Callable[[Workload, A], Message],
    ) -> None:
        """Answer at once, and again whenever the answer has changed; end when the caller's entitlement does."""
        _require_header(context)
        sent: A | None = None
        following = self._p.snapshots.follow()
        async with self._attested(context, self._p.streams) as workload, aclosing(following):
            async for snapshot in following:
                match decide(snapshot, workload):
                    case Denied():
                        self._refuse(workload)
                    case NotNow(why) if sent is None:
                        raise NotAvailable("no identity at the moment", why=why)
                    case Pending() | NotNow():
                        continue  # silent, and open: the client keeps what it has
                    case answer if answer != sent:
                        require_same(workload.process)
                        await self._write(context, render(workload, answer))
                        sent = answer

    async def _write(self, context: Context, message: Message) -> None:
        try:
            async with asyncio.timeout(self._p.write_timeout.total_seconds()):
                await context.write(message)
        except TimeoutError as cause:
            raise SlowReader("this stream takes no updates", fix="read faster, or connect again") from cause

    def _bundles(self, snapshot: Snapshot, workload: Workload) -> Bundles | NotNow | Denied:
        return bundles_for(snapshot, workload.attested, strangers=self._p.strangers)

    def _render_x509_svids(self, workload: Workload, answer: Identities) -> Message:
        serials = [f"{served.svid.serial:x}" for served in answer.identities]
        self._record(
            "x509_svid.serve", workload, [str(served.svid.id) for served in answer.identities], serials=serials
        )
        return messages.x509_svids(answer)

    def _entries(self, workload: Workload, wanted: SpiffeId | None) -> Sequence[Entry]:
        snapshot = self._p.snapshots.current
        if not snapshot.synced:
            raise NotAvailable("no identity at the moment", why="this agent has not heard from the CA yet")
        entries = [identity.entry for identity in snapshot.matching(workload.attested)]
        named = [entry for entry in entries if wanted is None or entry.spiffe_id == wanted]
        if not named:
            self._refuse(workload)
        return named

    async def _tokens(self, entries: Sequence[Entry], audience: Sequence[str]) -> list[JwtSvid]:
        asking = [asyncio.create_task(self._p.jwt_svids.get(entry, audience)) for entry in entries]
        try:
            return await asyncio.gather(*asking)
        except LiveryError as cause:
            raise NotAvailable(f"could not fetch JWT-SVID: {cause}") from cause
        finally:
            for task in asking:  # once one has failed, nobody waits for the others
                task.cancel()

    def _refuse(self, workload: Workload) -> NoReturn:
        process = workload.process
        self._p.audit.record("workload.identify", "refused", pid=process.pid, uid=process.uid)
        raise NoIdentity("no identity issued")

    def _record(self, event: str, workload: Workload, ids: Sequence[str], **more: object) -> None:
        process = workload.process
        self._p.audit.record(event, "granted", pid=process.pid, uid=process.uid, spiffe_ids=list(ids), **more)


def _require_header(context: Context) -> None:
    # Exactly once, and exactly this value (SPIFFE Workload Endpoint 3): whoever makes a server on this machine send
    # requests for him rarely commands their metadata as well.
    sent = [value for key, value in context.invocation_metadata() or () if key == HEADER]
    if sent != ["true"]:
        raise BadCall("security header missing from request")


def _parsed_id(text: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text)
    except InvalidSpiffeId as cause:
        raise BadCall("invalid requested SPIFFE ID", why=cause.why) from cause
