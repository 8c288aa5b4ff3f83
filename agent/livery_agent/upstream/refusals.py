"""What a failed call to the CA means for this node.

Owns: reading a gRPC failure (code, text, SPIRE's `PermissionDeniedDetails`) and naming it by one of our errors.
Does not own: what is then done about it (`node`, `keeper`).
"""

from __future__ import annotations

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from livery.wire import types_api
from livery_agent.errors import (
    AgentError,
    CaOverloaded,
    CaRefused,
    CaUnavailable,
    NodeBanned,
    NodeExpired,
    NodeMustReattest,
    NodeRefused,
)

DETAILS_TRAILER = "grpc-status-details-bin"
_DETAILS_TYPE = f"/{types_api.PermissionDeniedDetails.DESCRIPTOR.full_name}"
_Reason = types_api.PermissionDeniedDetails

_CLOCKS = "compare the clocks of this node and of the CA"
_PARDON = "ask for `livery node evict`, then attest anew"

# Each reason, what it means to this node (SPIRE 1.15, agent/manager), and what a person can do about it.
_REASONS: dict[int, tuple[type[NodeRefused], str, str]] = {
    _Reason.AGENT_EXPIRED: (NodeExpired, "the CA holds this node's certificate to be expired", _CLOCKS),
    _Reason.AGENT_NOT_ATTESTED: (NodeRefused, "the CA does not know this node (evicted, or the CA lost its store)", ""),
    _Reason.AGENT_NOT_ACTIVE: (NodeRefused, "the CA has a newer certificate of this node on record", ""),
    _Reason.AGENT_BANNED: (NodeBanned, "the CA's administrators have banned this node", _PARDON),
    _Reason.AGENT_MUST_REATTEST: (NodeMustReattest, "the CA wants this node to attest again instead of renewing", ""),
}

# The request will not get better by being repeated. (UNAUTHENTICATED is said of a connection that has had its time.)
_FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


def failure_of(what: str, error: grpc.aio.AioRpcError, last_refusal: str | None = None) -> AgentError:
    """Our name for a failed call; `what` says what was tried, `last_refusal` why the last dial failed if it did."""
    said = f"{error.code().name}: {(error.details() or '')[:300]}"
    known = _REASONS.get(_reason(error))
    if known is not None:
        refusal, why, fix = known
        return refusal(what, why=why, fix=fix)
    if error.code() in _FINAL:
        return CaRefused(what, why=said)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return CaOverloaded(what, why=said)
    # Where a dial failed, gRPC can only speak of the socket within this process that the dialer gave it.
    return CaUnavailable(what, why=f"{error.code().name}: {last_refusal}" if last_refusal else said)


def is_missing(error: grpc.aio.AioRpcError) -> bool:
    """Whether the CA said that there is no such thing."""
    return error.code() is grpc.StatusCode.NOT_FOUND


def is_unknown(error: grpc.aio.AioRpcError) -> bool:
    """Whether the CA has no such method."""
    return error.code() is grpc.StatusCode.UNIMPLEMENTED


def _reason(error: grpc.aio.AioRpcError) -> int:
    """The reason in the details trailer; UNKNOWN when there is none."""
    if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
        return _Reason.UNKNOWN
    try:
        for key, value in error.trailing_metadata() or ():
            if key != DETAILS_TRAILER or isinstance(value, str):
                continue
            for detail in Status.FromString(value).details:
                if detail.type_url.endswith(_DETAILS_TYPE):
                    return types_api.PermissionDeniedDetails.FromString(detail.value).reason
    except DecodeError:
        return _Reason.UNKNOWN
    return _Reason.UNKNOWN
