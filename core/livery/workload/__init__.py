"""What an application imports: an identity that is always current, and connections made with it.

Owns: following the Workload API (`WorkloadSource`), TLS contexts that show the newest SVID and check the peer's SPIFFE
ID (`server_context`, `client_context`), and an HTTP client (`livery.workload.http_client`, kept apart because it loads
httpx2). Does not own: serving HTTP (`livery.runtime.http`), or what a peer may do (policy).

Invariants: nothing here writes a key to disk; no connection is used before the peer's SPIFFE ID was verified.
"""

from __future__ import annotations

from livery.workload.context import X509Context
from livery.workload.errors import (
    IdentityEnded,
    InvalidEndpoint,
    MalformedResponse,
    NoIdentity,
    NotEntitled,
    PeerRefused,
    RequestRefused,
    WorkloadApiUnavailable,
    WorkloadError,
)
from livery.workload.source import WorkloadSource
from livery.workload.tls import client_context, server_context

__all__ = [
    "IdentityEnded",
    "InvalidEndpoint",
    "MalformedResponse",
    "NoIdentity",
    "NotEntitled",
    "PeerRefused",
    "RequestRefused",
    "WorkloadApiUnavailable",
    "WorkloadError",
    "WorkloadSource",
    "X509Context",
    "client_context",
    "server_context",
]
