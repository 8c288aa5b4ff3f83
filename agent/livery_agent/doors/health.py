"""Whether this agent lives and is ready, for gRPC health checks on the Workload API's socket.

Owns: the service `grpc.health.v1.Health` (Check and Watch) and the meaning of "ready". Does not own: the same answers
over HTTP (`admin`).

Ready means: the CA has told us our entries at least once, so that callers get an answer and not "not yet". An agent
whose CA goes away later stays ready, because it keeps serving.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import aclosing
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from livery.errors import Kind
from livery_agent.doors.places import Places
from livery_agent.errors import AgentError
from livery_agent.identities.snapshot import Snapshot, Snapshots

SERVICES = ("", "SpiffeWorkloadAPI")  # the whole agent, and its one service beside this

Context = grpc.aio.ServicerContext[Any, Any]


class UnknownService(AgentError):
    """A health check for something this agent does not serve."""

    code = "unknown_service"
    kind = Kind.NOT_FOUND


def is_ready(snapshot: Snapshot) -> bool:
    """Whether callers can be answered."""
    return snapshot.synced and snapshot.bundle is not None


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """gRPC health of the whole agent (empty name) and of the Workload API, which are one and the same."""

    def __init__(self, snapshots: Snapshots, streams: Places) -> None:
        self._snapshots = snapshots
        self._streams = streams

    def add_to(self, server: grpc.aio.Server) -> None:
        """Offer the service on a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802, ARG002
        """Answer whether the agent is ready now."""
        if request.service not in SERVICES:
            raise UnknownService("unknown service")
        return _status(self._snapshots.current, request.service)

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802
        """Answer now and at each change (gRPC health protocol: an unknown service is a status, not an error)."""
        sent = None
        with self._streams.place(context):
            async with aclosing(self._snapshots.follow()) as following:
                async for snapshot in following:
                    answer = _status(snapshot, request.service)
                    if answer != sent:
                        await _write(context, answer)
                        sent = answer


def _write(context: Context, message: Any) -> Awaitable[None]:
    return context.write(message)


def _status(snapshot: Snapshot, service: str) -> Any:
    known = health_pb2.HealthCheckResponse
    if service not in SERVICES:
        return known(status=known.SERVICE_UNKNOWN)
    return known(status=known.SERVING if is_ready(snapshot) else known.NOT_SERVING)
