"""What surrounds a call tells the truth also about a caller that has gone: nobody's mistake, and nothing in the log."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog

from livery.errors import Kind, LiveryError
from livery.runtime.caller import LOCAL_ADDRESS, Caller, HasPeer
from livery.runtime.clock import SystemClock
from livery.runtime.front_door.call_interceptor import CallInterceptor
from livery.runtime.front_door.connection import Connection, ConnectionTable
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import Admission, DoorLimits
from livery.runtime.transport.splice import End

PATIENCE = 10.0


class OneCaller(ConnectionTable):
    """Whoever calls, it is the same."""

    def __init__(self) -> None:
        super().__init__()
        seat = Admission(DoorLimits()).seat_process(1)
        self._one = Connection(Caller("/run/1", LOCAL_ADDRESS), End(1), seat, opened=0.0)

    def find(self, context: HasPeer) -> Connection:
        return self._one


class Unwilling(LiveryError):
    """A refusal of ours."""

    code = "unwilling"
    kind = Kind.DENIED


class Hasty:
    """A client in a thread of its own, which leaves as soon as its call has arrived. Our loop may stand still."""

    def __init__(self, address: str) -> None:
        self.arrived, self.gone = threading.Event(), threading.Event()
        self._address = address
        self._thread = threading.Thread(target=self._call)

    def _call(self) -> None:
        with grpc.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary("/test.T/Answer").future(b"", timeout=PATIENCE)
            self.arrived.wait(PATIENCE)
            call.cancel()
        self.gone.set()

    async def __aenter__(self) -> Hasty:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._thread.join)


async def its_answers(tmp_path: Path, answer: Callable[[Any], Any]) -> AsyncIterator[Any]:
    """Serve callers that have gone before `answer` is asked; yields the log's lines about each."""
    ended = asyncio.Event()
    table = OneCaller()
    address = f"unix:{tmp_path / 's'}"
    caller: Hasty

    async def behave(_: bytes, context: Any) -> Any:
        context.add_done_callback(lambda _: ended.set())
        caller.arrived.set()
        assert caller.gone.wait(PATIENCE), "our loop stands still until the caller is gone: our answer comes too late"
        # gRPC's own threads may not have heard of it yet. If they do so later still, the answer is sent, to nobody.
        threading.Event().wait(0.05)
        return await answer(context)

    server = grpc.aio.server(interceptors=(CallInterceptor(table, (), SystemClock(), Metrics()),))
    handlers = {"Answer": grpc.unary_unary_rpc_method_handler(behave)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.T", handlers),))
    server.add_insecure_port(address)
    await server.start()
    try:
        for _ in range(5):
            ended.clear()
            with structlog.testing.capture_logs() as logs:
                async with asyncio.timeout(PATIENCE), Hasty(address) as caller:
                    await ended.wait()
            yield logs
    finally:
        await server.stop(0)


async def our_refusal(_: Any) -> Any:
    raise Unwilling("not today")


async def its_own_answer(context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "as generated code does for a method that is not there")


@pytest.mark.parametrize("answer", [our_refusal, its_own_answer])
async def test_an_answer_to_a_caller_that_has_gone_is_not_logged_as_a_mistake_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: Callable[[Any], Any]
):
    with caplog.at_level(logging.WARNING):
        async for logs in its_answers(tmp_path, answer):
            assert [(line["event"], line["log_level"]) for line in logs] == [("call", "info")]
            assert logs[0]["code"] in {"PERMISSION_DENIED", "UNIMPLEMENTED", "CANCELLED"}
    assert not caplog.records, "nor by gRPC"
