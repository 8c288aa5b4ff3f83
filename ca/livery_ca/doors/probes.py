"""Health and metrics for machines: gRPC's health service on the administrators' socket, and three HTTP paths.

Owns: `/live`, `/ready`, `/metrics` as a bare ASGI application, and setting the status of `grpc.health.v1`. Does not
own: what is wrong (`livery_ca.health`).

Invariants: live means the process answers, ready means that it can issue; neither says anything a stranger could use.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio  # pyright: ignore[reportAttributeAccessIssue] - by version

from livery.runtime.metrics import CONTENT_TYPE, Metrics
from livery_ca.health import Health

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_STATUS = health_pb2.HealthCheckResponse


class HealthDoor(health_aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """`grpc.health.v1.Health`, whose one service (the empty name) serves while certificates can be issued."""

    def __init__(self, health: Health) -> None:
        super().__init__()
        self._setting: set[asyncio.Task[None]] = set()
        health.on_change(self._changed)

    def _changed(self, ready: bool) -> None:
        task = asyncio.get_running_loop().create_task(self.set("", _STATUS.SERVING if ready else _STATUS.NOT_SERVING))
        self._setting.add(task)
        task.add_done_callback(self._setting.discard)


class Probes:
    """The HTTP application."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            status, kind, body = self._answer(scope["method"], scope["path"])
            headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status.value, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, method: str, path: str) -> tuple[HTTPStatus, str, bytes]:
        if method not in {"GET", "HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b""
        match path:
            case "/live":
                return HTTPStatus.OK, "application/json", b'{"state":"ok"}'
            case "/ready":
                status = HTTPStatus.OK if self._health.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
                return status, "application/json", json.dumps(self._health.as_document()).encode()
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE, self._metrics.render()
        return HTTPStatus.NOT_FOUND, "text/plain", b""
