"""Who may call which method: one table, and the order in which a caller's standing is found out.

Owns: `RIGHTS` and the pure decision on an agent's serials. Does not own: who the caller is (the front door
authenticated it) or the look-ups (`gate`).

Invariants: a method that is not in the table may be called by nobody; a class counts only where the table names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Flag, auto
from types import MappingProxyType

from livery.identity import VerifiedX509Svid
from livery.wire import types_api
from livery_ca.model import Node


class Class(Flag):
    """The classes of caller, in the order they are tried."""

    ANY = auto()  # whoever can open a connection, a certificate or not
    LOCAL = auto()  # a process admitted to the administrators' unix socket
    ADMIN = auto()  # an SVID named in `admin_ids`, or with an entry that says `admin`
    DOWNSTREAM = auto()  # an SVID with an entry that says `downstream`
    AGENT = auto()  # an attested node, by its current certificate, over TCP


_ADMINS = Class.ADMIN | Class.LOCAL

_SERVICES: Mapping[str, Mapping[Class, str]] = {
    "spire.api.server.agent.v1.Agent": {
        Class.ANY: "AttestAgent",
        Class.AGENT: "RenewAgent PostStatus",
        _ADMINS: "CountAgents ListAgents GetAgent DeleteAgent BanAgent CreateJoinToken",
    },
    "spire.api.server.bundle.v1.Bundle": {
        Class.ANY: "GetBundle",
        Class.DOWNSTREAM: "PublishJWTAuthority PublishWITAuthority",
        _ADMINS | Class.AGENT: "GetFederatedBundle",
        _ADMINS: "CountBundles AppendBundle ListFederatedBundles BatchCreateFederatedBundle BatchUpdateFederatedBundle"
        " BatchSetFederatedBundle BatchDeleteFederatedBundle",
    },
    "spire.api.server.entry.v1.Entry": {
        Class.AGENT: "GetAuthorizedEntries SyncAuthorizedEntries",
        _ADMINS: "CountEntries ListEntries GetEntry BatchCreateEntry BatchUpdateEntry BatchDeleteEntry",
    },
    "spire.api.server.svid.v1.SVID": {
        Class.AGENT: "BatchNewX509SVID NewJWTSVID BatchNewWITSVID",
        Class.DOWNSTREAM: "NewDownstreamX509CA",
        _ADMINS: "MintX509SVID MintJWTSVID MintWITSVID",
    },
    "spire.api.server.trustdomain.v1.TrustDomain": {
        _ADMINS: "ListFederationRelationships GetFederationRelationship BatchCreateFederationRelationship"
        " BatchUpdateFederationRelationship BatchDeleteFederationRelationship RefreshBundle",
    },
    "spire.api.server.localauthority.v1.LocalAuthority": {
        _ADMINS: "GetJWTAuthorityState PrepareJWTAuthority ActivateJWTAuthority TaintJWTAuthority RevokeJWTAuthority"
        " GetX509AuthorityState PrepareX509Authority ActivateX509Authority TaintX509Authority"
        " TaintX509UpstreamAuthority RevokeX509Authority RevokeX509UpstreamAuthority GetWITAuthorityState"
        " PrepareWITAuthority ActivateWITAuthority TaintWITAuthority RevokeWITAuthority",
    },
    "spire.api.server.debug.v1.Debug": {Class.LOCAL: "GetInfo"},
    "spire.api.server.logger.v1.Logger": {Class.LOCAL: "GetLogger SetLogLevel ResetLogLevel"},
    "livery.v1.Delivery": {_ADMINS: "GetDelivery"},
    "grpc.health.v1.Health": {Class.LOCAL: "Check List Watch"},
}

RIGHTS: Mapping[str, Class] = MappingProxyType(
    {
        f"/{service}/{method}": classes
        for service, rows in _SERVICES.items()
        for classes, methods in rows.items()
        for method in methods.split()
    }
)
"""Every method of the server API, `/package.Service/Method`, and the classes that may call it."""


@dataclass(frozen=True, slots=True)
class Active:
    """The agent calls with a certificate that counts. `promote`: it is the renewed one, used for the first time."""

    node: Node
    promote: bool = False


@dataclass(frozen=True, slots=True)
class Inactive:
    """The agent's certificate does not count; `reason` tells the agent what to do about it."""

    reason: types_api.PermissionDeniedDetails.Reason.ValueType
    text: str


def agent_standing(svid: VerifiedX509Svid, node: Node | None, at: datetime) -> Active | Inactive:
    """Judge an agent's certificate by the row of its node; the order is SPIRE's."""
    agent, serial, why = svid.id, str(svid.serial), types_api.PermissionDeniedDetails
    if at > svid.not_after:
        return Inactive(why.AGENT_EXPIRED, f'agent "{agent}" SVID is expired')
    if node is None:
        return Inactive(why.AGENT_NOT_ATTESTED, f'agent "{agent}" is not attested')
    # An empty serial is the ban; were it compared first, a banned agent's pending renewal would still be accepted.
    if not node.serial:
        return Inactive(why.AGENT_BANNED, f'agent "{agent}" is banned')
    if serial == node.serial:
        return Active(node)
    if serial == node.new_serial:
        return Active(node, promote=True)
    text = f'agent "{agent}" expected to have serial number "{node.serial}"; has "{serial}"'
    return Inactive(why.AGENT_NOT_ACTIVE, text)
