"""The one place that knows gRPC and HTTP codes: from an error's `Kind` to the codes of both.

Owns: the table of kinds, and the shape of a refusal on the wire (code, text, `grpc-status-details-bin`). Does not own:
errors (each package has its own leaves) nor RPCs for which another standard fixes a code (their door's table says so).

Invariant: every `Kind` has a row, and an error that is not ours becomes INTERNAL with a request id and no text of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from livery.errors import Kind, LiveryError

DETAILS_TRAILER = "grpc-status-details-bin"

_GRPC = MappingProxyType(
    {
        Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
        Kind.DENIED: grpc.StatusCode.PERMISSION_DENIED,
        Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Kind.CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
        Kind.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
        Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Kind.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
        Kind.INTERNAL: grpc.StatusCode.INTERNAL,
    }
)

_HTTP = MappingProxyType(
    {
        Kind.INVALID: HTTPStatus.BAD_REQUEST,
        Kind.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
        Kind.DENIED: HTTPStatus.FORBIDDEN,
        Kind.NOT_FOUND: HTTPStatus.NOT_FOUND,
        Kind.CONFLICT: HTTPStatus.CONFLICT,
        Kind.PRECONDITION: HTTPStatus.CONFLICT,
        Kind.EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
        Kind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        Kind.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
        Kind.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)


def grpc_code(kind: Kind) -> grpc.StatusCode:
    """Return the gRPC status code of a kind of error."""
    return _GRPC[kind]


def http_status(kind: Kind) -> HTTPStatus:
    """Return the HTTP status of a kind of error."""
    return _HTTP[kind]


def grpc_number(code: grpc.StatusCode) -> int:
    """Return the number of a gRPC code, as `google.rpc.Status` and `spire.api.types.Status` carry it."""
    number: int = code.value[0]
    return number


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a remote caller is told: a gRPC code, one line, and the bytes of the details trailer (empty: none)."""

    code: grpc.StatusCode
    text: str
    details: bytes = b""

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the trailing metadata that carries the details."""
        return ((DETAILS_TRAILER, self.details),) if self.details else ()


def refusal_of(error: LiveryError) -> Refusal:
    """Return how an error of ours goes over the wire; its attribute `grpc_details`, if any, becomes the trailer."""
    code = grpc_code(error.kind)
    text = str(error)
    details: Sequence[Message] = getattr(error, "grpc_details", ())
    return Refusal(code, text, encode_details(code, text, details) if details else b"")


def unexpected(request_id: str) -> Refusal:
    """Return the answer to an error that is a bug of ours: its class and a request id, the rest is in our log."""
    return Refusal(grpc.StatusCode.INTERNAL, f"internal error (request {request_id})")


def encode_details(code: grpc.StatusCode, text: str, details: Sequence[Message]) -> bytes:
    """Return a serialized `google.rpc.Status` with `details` packed into it."""
    status = Status(code=grpc_number(code), message=text, details=[_packed(each) for each in details])
    return bytes(status.SerializeToString())


def _packed(message: Message) -> AnyMessage:
    # By hand: Any.Pack refuses a message of another descriptor pool than its own.
    name = message.DESCRIPTOR.full_name
    return AnyMessage(type_url=f"type.googleapis.com/{name}", value=message.SerializeToString())
