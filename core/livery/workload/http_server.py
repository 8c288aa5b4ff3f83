"""HTTP over mutual TLS from one identity: `server(source, app, port)` serves an ASGI application with our newest SVID.

Owns: the defaults an application wants for `livery.runtime.http.HttpServer`. Does not own: serving, nor what a caller
may do: put an enforcement point (`livery_policy.enforce`) around the application, or ask `peer_of(scope)` in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from livery.identity import SpiffeId
from livery.runtime.audit import Audit, AuditLog
from livery.runtime.clock import SystemClock
from livery.runtime.http import HttpOptions, HttpServer, TcpListen, peer_of
from livery.runtime.http.gate import Application
from livery.runtime.logging import Sink
from livery.runtime.metrics import Metrics
from livery.runtime.transport.listen import DoorIdentity

__all__ = ["HttpOptions", "HttpServer", "peer_of", "server"]


def server(  # noqa: PLR0913 - of an address and a few options, all by name
    source: DoorIdentity,
    app: Application,
    port: int,
    *,
    host: str = "127.0.0.1",
    admits_id: Callable[[SpiffeId], str | None] | None = None,
    audit: Audit | None = None,
    metrics: Metrics | None = None,
    options: HttpOptions | None = None,
) -> HttpServer:
    """A server to use in `async with`; port 0 takes a free one, and `address` says which.

    Callers of our own trust domain may connect, unless `admits_id` says why not (or None); whoever shows no certificate
    is anonymous, unless `options` demand one. Without `audit`, refused connections are recorded on stderr.
    """
    clock = SystemClock()
    return HttpServer(
        app,
        TcpListen(host, port, source, admits_id),
        clock=clock,
        audit=audit or AuditLog("workload", Sink(sys.stderr), clock),
        metrics=metrics or Metrics(),
        options=options,
    )
