"""What happens around every call through a front door, whatever its service.

Owns: the order of things before a method runs (its caller, the guards, the caller's expiry, and only then the parsing
of its request), the translation of errors, and the one log line and the one observation per call. Does not own: rights
and rates (the guards), or the codes (`problems`).

Invariants: no method, and no parser, sees a call without a current caller; no error's text reaches a stranger unless it
is ours; every call has exactly one log line; a caller that leaves while it is answered is nobody's mistake.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from inspect import isasyncgenfunction
from typing import Any, ClassVar, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from livery.errors import Kind, LiveryError
from livery.runtime.caller import calling
from livery.runtime.clock import Clock
from livery.runtime.front_door.calls import Call, Guard
from livery.runtime.front_door.connection import ConnectionTable
from livery.runtime.logging import bound_contextvars, get_logger
from livery.runtime.metrics import Metrics
from livery.runtime.problems import Refusal, refusal_of, unexpected

REQUEST_ID_TRAILER = "livery-request-id"
_LONGEST_METHOD = 200  # characters of an unknown method's name that go into the log
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

# Messages are of any type: what is between the wire and a servicer is written once for all of them. (As text, because
# grpcio's classes take type arguments in their stubs only.)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = "Callable[[Any, Context], Awaitable[Any]]"


class UnknownMethod(LiveryError):
    """There is no such method here."""

    code: ClassVar[str] = "unknown_method"
    kind: ClassVar[Kind] = Kind.UNIMPLEMENTED


class MalformedMessage(LiveryError):
    """A request's bytes are no message of its type."""

    code: ClassVar[str] = "malformed_message"
    kind: ClassVar[Kind] = Kind.INVALID


@dataclass(eq=False, slots=True)
class _Attempt:
    """One call while it is worked on: what its log line will say."""

    method: str
    context: Context
    started: float
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))
    fields: dict[str, object] = field(default_factory=dict)
    is_our_fault: bool = False

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error. Returns only if the caller has gone, and nobody hears it; grpc knows of the answer."""
        already = tuple(self.context.trailing_metadata() or ())
        trailers = (*already, *refusal.trailers(), (REQUEST_ID_TRAILER, self.request_id))
        with suppress(grpc.aio.InternalError):
            await self.context.abort(refusal.code, refusal.text, trailers)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of one server."""

    def __init__(self, table: ConnectionTable, guards: Sequence[Guard], clock: Clock, metrics: Metrics) -> None:
        self._table = table
        self._guards = tuple(guards)
        self._clock = clock
        self._seconds = metrics.histogram("rpc_seconds", "Seconds per call, by method and code.", ("method", "code"))
        self._log = get_logger("livery.calls").bind()  # once; it would be bound again for each line
        self._known: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the method's handler, wrapped; of a method that does not exist, one that says so."""
        method = handler_call_details.method
        known = self._known.get(method)
        if known is None:
            found = await continuation(handler_call_details)
            if found is None:
                return self._unknown(method)
            known = self._known[method] = self._wrap(method, found)
        return known

    async def _serve(self, method: str, label: str, context: Context, work: Callable[[], Awaitable[Any]]) -> Any:
        attempt = _Attempt(method, context, self._clock.monotonic())
        try:
            return await self._admit_and_work(attempt, work)
        except asyncio.CancelledError:
            attempt.fields["code"] = "CANCELLED"
            raise
        finally:
            self._report(attempt, label)

    async def _admit_and_work(self, attempt: _Attempt, work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            connection = self._table.find(attempt.context)
            caller = connection.caller
            attempt.fields |= {"caller": caller.describe(), "address": caller.address}
            call = Call(attempt.method, caller, attempt.request_id, attempt.fields)
            with connection.serving(self._clock), calling(caller), bound_contextvars(request_id=attempt.request_id):
                for guard in self._guards:
                    await guard(call)
                # Last: a guard may have a better word for it (SPIRE's AGENT_EXPIRED tells an agent what to do).
                caller.require_current(self._clock.now())
                return await work()
        except LiveryError as error:
            attempt.fields |= {"error": error.code, "why": str(error)}
            attempt.is_our_fault = error.kind is Kind.INTERNAL
            await attempt.refuse(refusal_of(error))
        except grpc.aio.AbortError:
            raise  # the method has answered already
        except grpc.aio.InternalError as error:
            # grpc can send nothing any more: the caller has gone, and the word of it comes after. Not our mistake.
            raise asyncio.CancelledError from error
        except Exception as error:  # noqa: BLE001 - a request boundary
            attempt.fields |= {"error": type(error).__name__}
            get_logger("livery.calls").exception("a call failed", request_id=attempt.request_id, method=attempt.method)
            attempt.is_our_fault = True
            await attempt.refuse(unexpected(attempt.request_id))

    def _report(self, attempt: _Attempt, label: str) -> None:
        seconds = self._clock.monotonic() - attempt.started
        code = attempt.fields.setdefault("code", _NAMES.get(_number(attempt.context.code()), "OK"))
        self._seconds.labels(label, code).observe(seconds)
        tell = self._log.error if attempt.is_our_fault else self._log.info
        fields = {"method": attempt.method, "ms": round(seconds * 1000, 3), **attempt.fields}
        tell("call", request_id=attempt.request_id, **fields)

    def _unknown(self, method: str) -> Handler:
        async def refuse() -> None:
            raise UnknownMethod("Method not found!")  # grpcio's own words

        async def behave(_requests: AsyncIterator[bytes], context: Context) -> None:
            await self._serve(method[:_LONGEST_METHOD], "unknown", context, refuse)

        return grpc.stream_stream_rpc_method_handler(behave)

    def _wrap(self, method: str, found: Any) -> Handler:
        parse = _parser(found.request_deserializer)
        match (found.request_streaming, found.response_streaming):
            case (False, False) if isasyncgenfunction(found.unary_unary):
                # One answer, after which the method goes on once that is sent: the same on the wire.
                behave = self._unary(method, parse, _writing(found.unary_unary))
                return grpc.unary_stream_rpc_method_handler(behave, None, found.response_serializer)
            case (False, False):
                behave = self._unary(method, parse, found.unary_unary)
                return grpc.unary_unary_rpc_method_handler(behave, None, found.response_serializer)
            case (False, True):
                behave = self._unary(method, parse, _writing(found.unary_stream))
                return grpc.unary_stream_rpc_method_handler(behave, None, found.response_serializer)
            case (True, False):
                behave = self._streaming(method, found.stream_unary)
                return grpc.stream_unary_rpc_method_handler(behave, parse, found.response_serializer)
            case _:
                behave = self._streaming(method, _writing(found.stream_stream))
                return grpc.stream_stream_rpc_method_handler(behave, parse, found.response_serializer)

    def _unary(self, method: str, parse: Callable[[bytes], Any], inner: Behaviour) -> Behaviour:
        async def behave(request: bytes, context: Context) -> Any:
            async def work() -> Any:
                return await inner(parse(request), context)

            return await self._serve(method, method, context, work)

        return behave

    def _streaming(self, method: str, inner: Behaviour) -> Behaviour:
        async def behave(requests: AsyncIterator[Any], context: Context) -> Any:
            return await self._serve(method, method, context, lambda: inner(requests, context))

        return behave


def _parser(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            return data if deserializer is None else deserializer(data)
        except DecodeError as error:
            raise MalformedMessage("the request cannot be read", why="its bytes are no message of its type") from error

    return parse


def _writing(inner: Any) -> Behaviour:
    """Make a generator write: then one task does all, and what is in its context holds to the call's end."""
    if not isasyncgenfunction(inner):
        behave: Behaviour = inner
        return behave

    async def write(request: Any, context: Context) -> None:
        async with aclosing(inner(request, context)) as replies:
            async for reply in replies:
                await context.write(reply)

    return write


def _number(code: Any) -> int:
    return code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
