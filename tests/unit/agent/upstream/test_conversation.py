"""A call that the peer ends while we write to it ends as the peer said, whatever gRPC makes of the write."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from livery.wire import agent_api
from livery_agent.upstream.conversation import Conversation
from tests.fakes.clock import settle

REFUSAL = "could not find node attestor type"


class Ending(agent_api.AgentServicer):
    """Ends each call without reading; says when it has. In threads of its own, so that our loop may stand still."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code
        self.ended = threading.Event()

    def AttestAgent(self, requests: Any, context: Any) -> Iterator[agent_api.AttestAgentResponse]:
        context.add_callback(self.ended.set)
        context.set_trailing_metadata((("reason", "7"),))
        if self.code is not grpc.StatusCode.OK:
            context.abort(self.code, REFUSAL)
        yield from ()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def hear_what_it_said(pool: ThreadPoolExecutor, peer: Ending) -> agent_api.AttestAgentResponse | None:
    server = grpc.server(pool)
    port = server.add_insecure_port("127.0.0.1:0")
    agent_api.add_AgentServicer_to_server(peer, server)
    server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = agent_api.AgentStub(channel).AttestAgent(timeout=10)
            talk = Conversation(call)
            await asyncio.wait_for(started(call), 10)
            assert peer.ended.wait(10), "our loop stands still until the peer is done: our write comes too late"
            await talk.say(agent_api.AttestAgentRequest())
            return await talk.hear()
    finally:
        server.stop(None).wait()


async def started(call: Any) -> None:
    while not call._metadata_sent.is_set():
        await asyncio.sleep(0)


@pytest.mark.parametrize("_", range(10))
async def test_a_write_to_a_call_that_the_peer_has_ended_does_not_hide_why(pool: ThreadPoolExecutor, _: int):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await hear_what_it_said(pool, Ending(grpc.StatusCode.FAILED_PRECONDITION))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, REFUSAL)
    assert ("reason", "7") in tuple(caught.value.trailing_metadata() or ())


async def test_a_call_that_ended_well_before_we_wrote_has_no_answer(pool: ThreadPoolExecutor):
    assert await hear_what_it_said(pool, Ending(grpc.StatusCode.OK)) is None


@pytest.mark.parametrize("how", ["cancelled", "its channel closed"])
async def test_what_waits_to_be_said_until_there_is_a_connection_waits_no_longer_than_its_call(how: str):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{silent.getsockname()[1]}")
        call = agent_api.AgentStub(channel).AttestAgent(timeout=60)
        talk = Conversation(call)
        saying = asyncio.create_task(talk.say(agent_api.AttestAgentRequest()))
        await settle()
        assert not saying.done()
        if how == "cancelled":
            call.cancel()
        await channel.close()
        async with asyncio.timeout(10):
            await saying
            with pytest.raises(asyncio.CancelledError):  # as gRPC says it of a call that this side has ended
                await talk.hear()


class LateStatus:
    """A call whose write fails first and whose status comes after: grpc.aio first says that it lost the status."""

    def __init__(self) -> None:
        self.ended: Any = None
        self.looks = 0

    def add_done_callback(self, callback: Any) -> None:
        self.ended = callback

    async def write(self, _: object) -> None:
        self.ended(self)
        raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL)

    async def read(self) -> Any:
        raise grpc.aio.AioRpcError(await self.code(), details=await self.details())

    async def code(self) -> grpc.StatusCode:
        self.looks += 1
        return grpc.StatusCode.INTERNAL if self.looks < 5 else grpc.StatusCode.PERMISSION_DENIED

    async def details(self) -> str:
        return "Internal error from Core" if self.looks < 5 else "agent is banned"

    async def initial_metadata(self) -> None: ...

    async def trailing_metadata(self) -> None: ...

    async def debug_error_string(self) -> str:
        return ""


async def test_a_status_that_comes_after_the_failed_write_is_waited_for():
    talk: Conversation[object, object] = Conversation(cast("Any", LateStatus()))
    await talk.say(object())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await talk.hear()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, "agent is banned")
