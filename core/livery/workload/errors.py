"""What can go wrong between an application and the agent on its machine.

Owns: the errors of `livery.workload`. Invariant: none of them holds key material or a token.
"""

from __future__ import annotations

from typing import ClassVar

from livery.errors import Kind, LiveryError


class WorkloadError(LiveryError):
    """Any failure of the Workload API or of what is built on it."""

    code: ClassVar[str] = "workload_error"


class InvalidEndpoint(WorkloadError):
    """The address of the Workload API is missing or malformed."""

    code: ClassVar[str] = "invalid_endpoint"
    kind: ClassVar[Kind] = Kind.INVALID


class WorkloadApiUnavailable(WorkloadError):
    """The agent cannot be reached, or is not ready; try again."""

    code: ClassVar[str] = "workload_api_unavailable"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class NotEntitled(WorkloadError):
    """The agent knows us, and no entry gives us an identity."""

    code: ClassVar[str] = "not_entitled"
    kind: ClassVar[Kind] = Kind.DENIED


class RequestRefused(WorkloadError):
    """The agent does not accept the request, and repeating it would not help."""

    code: ClassVar[str] = "workload_request_refused"
    kind: ClassVar[Kind] = Kind.INVALID


class MalformedResponse(WorkloadError):
    """The agent sent something that is not what the Workload API says; it was discarded."""

    code: ClassVar[str] = "malformed_response"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class NoIdentity(WorkloadError):
    """The agent has not given us an identity yet."""

    code: ClassVar[str] = "no_identity"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class IdentityEnded(WorkloadError):
    """Our certificate has ended and the agent has not given us a new one."""

    code: ClassVar[str] = "identity_ended"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class PeerRefused(WorkloadError):
    """The other end of a connection is not who we expected; not one byte was sent to it."""

    code: ClassVar[str] = "peer_refused"
    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED
