"""The agent's administration socket: read-only HTTP for operators and probes, of use with the CA down.

Owns: GET `/live`, `/ready`, `/metrics` and `/inspect`, as one ASGI application. Does not own: the socket and its
permissions (0600; `livery.runtime.http`), or the document (`inspection.document`).

Invariant: nothing here changes state or shows a secret.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from livery.runtime.clock import Clock
from livery.runtime.metrics import CONTENT_TYPE, Metrics
from livery_agent.doors.health import is_ready
from livery_agent.inspection.document import Scene, document

JSON = "application/json"

Message = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, content type and body of one reply."""

    status: HTTPStatus
    kind: str
    body: bytes


class AdminDoor:
    """An ASGI application; `scene` takes in what there is to see at the moment."""

    def __init__(self, scene: Callable[[], Scene], metrics: Metrics, clock: Clock) -> None:
        self._scene = scene
        self._metrics = metrics
        self._clock = clock
        self._pages: dict[str, Callable[[], Answer]] = {
            "/live": lambda: _json({"live": True}),
            "/ready": self._ready,
            "/inspect": lambda: _json(document(self._scene(), self._clock.now())),
            "/metrics": lambda: Answer(HTTPStatus.OK, CONTENT_TYPE, self._metrics.render()),
        }

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],  # noqa: ARG002 - no request here has a body
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        answer = self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", answer.kind.encode()), (b"content-length", str(len(answer.body)).encode())]
        await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    def _answer(self, method: str, path: str) -> Answer:
        page = self._pages.get(path)
        if page is None:
            return _json({"error": "not found", "pages": sorted(self._pages)}, HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return _json({"error": "this socket is read-only"}, HTTPStatus.METHOD_NOT_ALLOWED)
        return page()

    def _ready(self) -> Answer:
        scene = self._scene()
        ready = is_ready(scene.snapshot)
        failing = next(iter(scene.status.failures.values()), None)
        why = failing.error if failing else "not synchronised with the CA yet"
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json({"ready": ready} if ready else {"ready": ready, "why": why}, status)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, JSON, json.dumps(value).encode() + b"\n")
