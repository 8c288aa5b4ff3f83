"""The SVID service: certificates and tokens for workloads, asked for by their agents or by an administrator.

Owns: BatchNewX509SVID, NewJWTSVID, MintX509SVID, MintJWTSVID. Does not own: entitlement (`entries`), signing
(`issuance`), CSRs (`csrs`). The other methods of `spire.api.server.svid.v1.SVID` are not offered and say so.

Invariants: an agent gets what its entries say and nothing else; of a CSR of its, only the key is taken. An item of a
batch that fails never fails another.
"""
# ruff: noqa: N802 - methods and parameters are the wire's

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from grpc.aio import ServicerContext

from livery.errors import Kind, LiveryError
from livery.identity import SpiffeId, TrustDomain
from livery.runtime.audit import Audit
from livery.runtime.clock import Clock
from livery.wire import svid_api, types_api
from livery_ca.certificates.profile import Profile, PublicKey
from livery_ca.doors.guard.gate import Admission, admission_of
from livery_ca.doors.guard.limits import Limits
from livery_ca.doors.messages import csrs, ids
from livery_ca.doors.messages.presence import given
from livery_ca.doors.messages.svid_form import jwt_to_wire, x509_to_wire
from livery_ca.doors.refusals import Failed, InvalidArgument, Missing, Refusal, failing, malformed, ok, status_of
from livery_ca.doors.unoffered import unoffered
from livery_ca.entries.catalog import Catalog
from livery_ca.issuance.jwt import JwtIssuer
from livery_ca.issuance.pipeline import Issuer
from livery_ca.issuance.request import Issued, IssueRequest, JwtRequest, Refused
from livery_ca.model import Entry

Context = ServicerContext[Any, Any]
Result = svid_api.BatchNewX509SVIDResponse.Result

_SERVICE = "/spire.api.server.svid.v1.SVID/"
_SIGNING = "failed to sign X509-SVID"


@dataclass(frozen=True, slots=True)
class SvidTtls:
    """How long SVIDs live whose entry, or whose administrator, does not say."""

    x509: timedelta
    jwt: timedelta


@unoffered("MintWITSVID BatchNewWITSVID", text="WIT functionality is disabled")
@unoffered("NewDownstreamX509CA")
@dataclass(frozen=True, slots=True)
class SvidDoor(svid_api.SVIDServicer):
    """Answers for SVIDs."""

    ours: TrustDomain
    catalog: Catalog
    issuer: Issuer
    jwt_issuer: JwtIssuer
    ttls: SvidTtls
    limits: Limits
    clock: Clock
    audit: Audit

    async def BatchNewX509SVID(
        self, request: svid_api.BatchNewX509SVIDRequest, context: Context
    ) -> svid_api.BatchNewX509SVIDResponse:
        """An SVID for each entry asked for, with the key of its CSR.

        1. The request has items, and the agent's turn has come.
        2. Which of the entries the agent is entitled to.
        3. Each item by itself becomes a request to the issuer or a refusal.
        4. What was refused keeps its place in the answer.
        """
        if not request.params:  # 1
            raise InvalidArgument("missing parameters")
        what = "rejecting request due to certificate signing rate limiting"
        await self.limits.turn(context, f"{_SERVICE}BatchNewX509SVID", what, len(request.params))
        admission = admission_of(context)
        entries = await self._entitled(admission, {each.entry_id for each in request.params})  # 2
        items = await self._read(request.params, entries, admission)  # 3
        issued = iter(await self._issue([item for item in items if isinstance(item, IssueRequest)]))
        results = [_result(next(issued) if isinstance(item, IssueRequest) else item) for item in items]  # 4
        return svid_api.BatchNewX509SVIDResponse(results=results)

    async def NewJWTSVID(self, request: svid_api.NewJWTSVIDRequest, context: Context) -> svid_api.NewJWTSVIDResponse:
        """A token for one entry."""
        what = "rejecting request due to JWT signing request rate limiting"
        await self.limits.turn(context, f"{_SERVICE}NewJWTSVID", what)
        admission = admission_of(context)
        entry = (await self._entitled(admission, {request.entry_id})).get(request.entry_id)
        if entry is None:
            raise Missing("entry not found or not authorized")
        wanted = JwtRequest(
            spiffe_id=entry.spiffe_id,
            audience=_audience(request.audience),
            ttl=entry.jwt_svid_ttl or self.ttls.jwt,
            asked_by=admission.asked_by,
            jti=entry.jwt_svid_include_jti,
            entry_id=entry.id,
            authorized_by=_rule(entry),
        )
        return svid_api.NewJWTSVIDResponse(svid=await self._issue_jwt(wanted))

    async def MintX509SVID(
        self, request: svid_api.MintX509SVIDRequest, context: Context
    ) -> svid_api.MintX509SVIDResponse:
        """An SVID for an administrator: ID, DNS names and subject are those of the CSR."""
        if not request.csr:
            raise InvalidArgument("missing CSR")
        wanted = await csrs.read_minted(request.csr, self.ours)
        admission = admission_of(context)
        (answer,) = await self._issue(
            [
                IssueRequest(
                    profile=Profile.MINT,
                    spiffe_id=wanted.spiffe_id,
                    public_key=wanted.public_key,
                    ttl=_ttl(request.ttl, self.ttls.x509),
                    asked_by=admission.asked_by,
                    dns_names=wanted.dns_names,
                    subject=wanted.subject,
                    authorized_by=_office(admission),
                )
            ]
        )
        if isinstance(answer, Refusal):
            raise answer
        return svid_api.MintX509SVIDResponse(svid=x509_to_wire(answer))

    async def MintJWTSVID(self, request: svid_api.MintJWTSVIDRequest, context: Context) -> svid_api.MintJWTSVIDResponse:
        """A token for an administrator."""
        with malformed("invalid SPIFFE ID"):
            spiffe_id = ids.workload_id(given(request, "id", types_api.SPIFFEID), self.ours)
        admission = admission_of(context)
        wanted = JwtRequest(
            spiffe_id=spiffe_id,
            audience=_audience(request.audience),
            ttl=_ttl(request.ttl, self.ttls.jwt),
            asked_by=admission.asked_by,
            authorized_by=_office(admission),
        )
        return svid_api.MintJWTSVIDResponse(svid=await self._issue_jwt(wanted))

    async def _entitled(self, admission: Admission, wanted: set[str]) -> dict[str, Entry]:
        if admission.node is None:
            raise Failed("caller ID missing from request context")
        node = admission.node
        with failing("failed to fetch registration entries"):
            return await self.catalog.entitled(node.id, node.selectors, wanted, self.clock.now())

    async def _read(
        self, params: Sequence[svid_api.NewX509SVIDParams], entries: Mapping[str, Entry], admission: Admission
    ) -> list[IssueRequest | Refusal]:
        chosen = [_entry_for(each, entries) for each in params]
        # A CSR is looked into only where an entry stands behind it.
        ders = [each.csr for each, entry in zip(params, chosen, strict=True) if isinstance(entry, Entry)]
        keys = iter(await csrs.read_keys(ders, csrs.WORKLOAD))
        items: list[IssueRequest | Refusal] = []
        for entry in chosen:
            key = next(keys) if isinstance(entry, Entry) else entry
            if isinstance(entry, Refusal):
                items.append(entry)
            elif isinstance(key, Refusal):
                items.append(key)
            else:
                items.append(self._request(entry, key, admission))
        return items

    def _request(self, entry: Entry, key: PublicKey, admission: Admission) -> IssueRequest:
        return IssueRequest(
            profile=Profile.WORKLOAD,
            spiffe_id=entry.spiffe_id,
            public_key=key,
            ttl=entry.x509_svid_ttl or self.ttls.x509,
            asked_by=admission.asked_by,
            dns_names=tuple(dict.fromkeys(entry.dns_names)),  # kept as given, and said once
            entry_id=entry.id,
            authorized_by=_rule(entry),
        )

    async def _issue(self, requests: Sequence[IssueRequest]) -> list[Issued | Refusal]:
        """The answers in the order of the requests. Audited before the effect; the journal holds the certificates."""
        for each in requests:
            self._record("svid.issue", each.spiffe_id, each.asked_by, entry=each.entry_id, rule=each.authorized_by)
        if not requests:
            return []
        with failing(_SIGNING):
            answers = await self.issuer.issue(requests)
        return [self._told(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def _told(self, request: IssueRequest, answer: Issued | Refused) -> Issued | Refusal:
        if isinstance(answer, Issued):
            return answer
        self.audit.record(
            "svid.issue", "failed", spiffe_id=str(request.spiffe_id), entry=request.entry_id, why=str(answer.error)
        )
        return _in_words(answer.error)

    async def _issue_jwt(self, request: JwtRequest) -> types_api.JWTSVID:
        self._record(
            "jwt.issue", request.spiffe_id, request.asked_by, entry=request.entry_id, rule=request.authorized_by
        )
        with failing("failed to sign JWT-SVID"):
            return jwt_to_wire(await self.jwt_issuer.issue(request))

    def _record(self, event: str, spiffe_id: SpiffeId, asked_by: str, **fields: object) -> None:
        self.audit.record(event, "granted", spiffe_id=str(spiffe_id), caller=asked_by, **fields)


def _entry_for(params: svid_api.NewX509SVIDParams, entries: Mapping[str, Entry]) -> Entry | Refusal:
    if not params.entry_id:
        return InvalidArgument("missing entry ID")
    if not params.csr:
        return InvalidArgument("missing CSR")
    return entries.get(params.entry_id) or Missing("entry not found or not authorized")


def _result(answer: Issued | Refusal) -> Result:
    if isinstance(answer, Issued):
        return Result(status=ok(), svid=x509_to_wire(answer))
    return Result(status=status_of(answer))


def _in_words(error: LiveryError) -> Refusal:
    if error.kind is Kind.INVALID:  # what was asked for can never be signed: the key, the names
        return InvalidArgument(_SIGNING, why=str(error))
    return Failed(_SIGNING, why=str(error))


def _audience(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise InvalidArgument("at least one audience is required")
    if not all(names):
        raise InvalidArgument("an audience is empty")
    return tuple(names)


def _ttl(seconds: int, default: timedelta) -> timedelta:
    if seconds < 0:
        raise InvalidArgument("ttl is negative")
    return timedelta(seconds=seconds) if seconds else default


def _rule(entry: Entry) -> str:
    return f"entry/{entry.id}@{entry.revision_number}"


def _office(admission: Admission) -> str:
    return (admission.standing.name or "").lower()
