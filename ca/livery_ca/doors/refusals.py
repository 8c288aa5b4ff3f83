"""How the authority says no on the wire: SPIRE's codes and texts, one class per code.

Owns: the refusals that doors raise, and `types.Status` for items of a batch. Does not own: the mapping of kinds to gRPC
codes (`livery.runtime.problems`), nor which text goes with which request (each door).

Invariant: an item of a batch always carries a `Status`: SPIRE's agent crashes without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from livery.errors import Kind, LiveryError
from livery.runtime.problems import grpc_code, grpc_number
from livery.wire import types_api


class Refusal(LiveryError):
    """The root of what a door says. The text is `what: why`, as SPIRE writes `message: inner error`."""

    code: ClassVar[str] = "refusal"


class InvalidArgument(Refusal):
    """The request is wrong."""

    code: ClassVar[str] = "invalid_argument"
    kind: ClassVar[Kind] = Kind.INVALID


class Missing(Refusal):
    """There is no such thing. SPIRE says no more than that, so `why` stays empty."""

    code: ClassVar[str] = "missing"
    kind: ClassVar[Kind] = Kind.NOT_FOUND


class AlreadyExists(Refusal):
    """There is one already."""

    code: ClassVar[str] = "already_exists"
    kind: ClassVar[Kind] = Kind.CONFLICT


class FailedPrecondition(Refusal):
    """The request is right, the authority's state is not."""

    code: ClassVar[str] = "failed_precondition"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class Exhausted(Refusal):
    """Over a limit."""

    code: ClassVar[str] = "exhausted"
    kind: ClassVar[Kind] = Kind.EXHAUSTED


class Unimplemented(Refusal):
    """Not offered here."""

    code: ClassVar[str] = "unimplemented"
    kind: ClassVar[Kind] = Kind.UNIMPLEMENTED


class Failed(Refusal):
    """The authority could not do it; not the caller's fault."""

    code: ClassVar[str] = "failed"
    kind: ClassVar[Kind] = Kind.INTERNAL


class Denied(Refusal):
    """The caller may not. `reason` rides in the trailer and tells an agent what to do next."""

    code: ClassVar[str] = "denied"
    kind: ClassVar[Kind] = Kind.DENIED

    def __init__(
        self, what: str, *, why: str = "", reason: types_api.PermissionDeniedDetails.Reason.ValueType | None = None
    ) -> None:
        super().__init__(what, why=why)
        self.reason = reason

    @property
    def grpc_details(self) -> tuple[types_api.PermissionDeniedDetails, ...]:
        """What `livery.runtime.problems` puts into the details trailer."""
        return () if self.reason is None else (types_api.PermissionDeniedDetails(reason=self.reason),)


_OURS = frozenset({Kind.INTERNAL, Kind.UNAVAILABLE, Kind.PRECONDITION})


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turn what is our fault (the store is away, a row is broken) into SPIRE's Internal with this text.

    What the caller could mend passes through.
    """
    try:
        yield
    except Refusal:
        raise
    except LiveryError as cause:
        if cause.kind not in _OURS:
            raise
        raise Failed(what, why=str(cause)) from cause


@contextmanager
def malformed(what: str) -> Iterator[None]:
    """Turn a value that cannot be read into InvalidArgument with this text."""
    try:
        yield
    except Refusal:
        raise
    except LiveryError as cause:
        if cause.kind is not Kind.INVALID:
            raise
        raise InvalidArgument(what, why=str(cause)) from cause


def ok() -> types_api.Status:
    """The status of an item that went well."""
    return types_api.Status(code=0, message="OK")


def status_of(error: LiveryError) -> types_api.Status:
    """The status of an item that did not."""
    return types_api.Status(code=grpc_number(grpc_code(error.kind)), message=str(error))
