"""AuthZEN over HTTP (Authorization API 1.0, section 10): bare ASGI, because this is the path every call waits for.

Owns: the three endpoints, their HTTP rules, and the order in which a request is refused. Does not own: messages
(`authzen_messages`), rights (`admission`), decisions (`decisions.point`).

Invariants: nothing of a body is read before its sender is known and admitted; a denial is 200 with `decision: false`,
and 403 is only for who may not ask; the request's X-Request-ID comes back as it was sent (AZ-6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from livery.errors import Kind, LiveryError
from livery.runtime.clock import Clock
from livery.runtime.http import peer_of
from livery.runtime.http.gate import Application, Receive, Scope, Send
from livery.runtime.problems import http_status
from livery_policy.decisions.point import DecisionPoint
from livery_policy.doors import authzen_messages as messages
from livery_policy.doors.admission import Admission
from livery_policy.doors.strict_json import Malformed, read_object

EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"
METADATA = "/.well-known/authzen-configuration"
PATHS = frozenset({EVALUATION, EVALUATIONS, METADATA})
_BREATHE = 0.002  # seconds of a batch between two breaths of the event loop: what an item costs is the sender's choice
_JSON = (b"content-type", b"application/json")
# 10.1.2 wants "an error message string", and 10.1.1 an object at the top of every JSON body: so it is no JSON.
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NO_STORE = (b"cache-control", b"no-store")

Headers = list[tuple[bytes, bytes]]
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class AuthzenLimits:
    """Bounds of one request."""

    max_body: int = 256 * 1024
    max_evaluations: int = 100


class _Refused(Exception):
    """This request ends here, with this status and message."""

    def __init__(self, status: HTTPStatus, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or []


class AuthzenDoor:
    """The AuthZEN endpoints as one ASGI application. `base_url` is asked for at each metadata request."""

    def __init__(
        self,
        point: DecisionPoint,
        admission: Admission,
        clock: Clock,
        limits: AuthzenLimits,
        base_url: Callable[[], str | None],
    ) -> None:
        self._point = point
        self._admission = admission
        self._clock = clock
        self._limits = limits
        self._base_url = base_url
        self._posts: dict[str, Callable[[dict[str, object], str], Awaitable[dict[str, object]]]] = {
            EVALUATION: self._evaluation,
            EVALUATIONS: self._evaluations,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request to one of `PATHS`."""
        echo = _request_id(scope)
        try:
            status, headers, body = await self._serve(scope, receive)
        except _Refused as e:
            status, headers, body = e.status, [_TEXT, _NO_STORE, *e.headers], str(e).encode()
        await _answer(send, status, headers + echo, body)

    async def _serve(self, scope: Scope, receive: Receive) -> tuple[HTTPStatus, Headers, bytes]:
        """(1) Path and method; (2) who; (3) the form of the body; (4) its bytes; (5) its JSON; (6) what it asks."""
        if scope["path"] == METADATA:
            return self._metadata(scope)
        _require_method(scope, "POST")  # 1
        asked_by = self._asker(scope)  # 2
        _require_json(scope)  # 3
        data = await self._body(receive)  # 4
        try:
            document = read_object(data)  # 5
            found = await self._posts[scope["path"]](document, asked_by)  # 6
        except (Malformed, messages.BadRequest) as e:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(e)) from e
        return HTTPStatus.OK, [_JSON, _NO_STORE], _encode(found)

    async def _evaluation(self, document: dict[str, object], asked_by: str) -> dict[str, object]:
        return self._decide(messages.read_evaluation(document), asked_by)

    async def _evaluations(self, document: dict[str, object], asked_by: str) -> dict[str, object]:
        batch = messages.read_batch(document, self._limits.max_evaluations)
        if batch is None:
            return self._decide(messages.read_evaluation(document), asked_by)
        answers: list[dict[str, object]] = []
        breathed = self._clock.monotonic()
        for item in batch.items:
            if self._clock.monotonic() - breathed >= _BREATHE:
                await asyncio.sleep(0)
                breathed = self._clock.monotonic()
            try:
                answers.append(self._decide(messages.read_evaluation(item), asked_by))
            except messages.BadRequest as e:
                answers.append(messages.failed_item(e))
            if batch.semantic.ends_with(answers[-1]["decision"] is True):
                break
        return messages.batch_answer(answers)

    def _decide(self, evaluation: messages.Evaluation, asked_by: str) -> dict[str, object]:
        return messages.answer(self._point.decide(evaluation.call, asked_by, refused=evaluation.refused))

    def _metadata(self, scope: Scope) -> tuple[HTTPStatus, Headers, bytes]:
        # Public by design: it says where to ask, and whoever asks there must say who they are.
        _require_method(scope, "GET")
        base = self._base_url()
        if base is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "this server has no https address; set public_url")
        return HTTPStatus.OK, [_JSON, (b"cache-control", b"max-age=300")], _encode(messages.metadata(base))

    def _asker(self, scope: Scope) -> str:
        try:
            return self._admission.asker(peer_of(scope), self._clock.now())
        except LiveryError as e:
            challenge = [(b"www-authenticate", b"X509-SVID")] if e.kind is Kind.UNAUTHENTICATED else []
            message = f"{e.what}: {e.fix}" if e.fix else e.what
            raise _Refused(http_status(e.kind), message, challenge) from e

    async def _body(self, receive: Receive) -> bytes:
        most = self._limits.max_body
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Refused(HTTPStatus.BAD_REQUEST, "the request ended before its body did")
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                text = f"the body is longer than {most} bytes"
                raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, [(b"connection", b"close")])
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)


class PolicyApplication:
    """The whole server as one ASGI application: the decision endpoints before everything else."""

    def __init__(self, authzen: AuthzenDoor, rest: Application) -> None:
        self._authzen = authzen
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route by path; lifespan and all that is not AuthZEN go to the rest."""
        if scope["type"] == "http" and scope["path"] in PATHS:
            await self._authzen(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def _require_method(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        text = f"this endpoint takes {method}"
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, text, [(b"allow", method.encode())])


def _require_json(scope: Scope) -> None:
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
        raise _Refused(HTTPStatus.BAD_REQUEST, "the content-type must be application/json")
    if any(name == b"content-encoding" for name, _ in scope["headers"]):
        raise _Refused(HTTPStatus.BAD_REQUEST, "a compressed body is not taken")


def _request_id(scope: Scope) -> Headers:
    """The request's own id, to go back as it came (AZ-6). The parser has refused anything that could break a line."""
    return [(b"x-request-id", value) for name, value in scope["headers"] if name == b"x-request-id"][:1]


async def _answer(send: Send, status: HTTPStatus, headers: Headers, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status.value, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
