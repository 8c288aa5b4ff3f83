"""The Workload API as a workload meets it: how soon the first SVID is there, and what an open stream costs the agent.

Owns: measuring from outside, over the socket. Each request and each stream has a connection of its own, as each
workload has; so a stream's memory includes its connection and the attestation of its process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median

import grpc
import grpc.aio
import psutil

from livery.wire import workload_api
from tests.bench.effort import Effort
from tests.bench.results import Result, measured

_HEADER = (("workload.spiffe.io", "true"),)
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_AT_ONCE = 50  # connections being opened


async def first_svid(address: str, effort: Effort) -> Result:
    """Milliseconds from a connected workload's first request to its SVID: the p50 of each repeat."""
    await _first_request(address)  # the agent has met this program before
    repeats = [
        median([await _first_request(address) for _ in range(effort.requests)]) * 1000 for _ in range(effort.repeats)
    ]
    return measured("workload_api_first_svid_p50", "ms", repeats)


async def _first_request(address: str) -> float:
    async with grpc.aio.insecure_channel(address, options=_OWN_CONNECTION) as channel:
        await channel.channel_ready()
        began = time.perf_counter()
        call = _stream(channel)
        await call.read()
        took = time.perf_counter() - began
        call.cancel()
        return took


def _stream(
    channel: grpc.aio.Channel,
) -> grpc.aio.UnaryStreamCall[workload_api.X509SVIDRequest, workload_api.X509SVIDResponse]:
    stub: workload_api.SpiffeWorkloadAPIAsyncStub = workload_api.SpiffeWorkloadAPIStub(channel)  # type: ignore[assignment]  # one class serves both
    return stub.FetchX509SVID(workload_api.X509SVIDRequest(), metadata=_HEADER)


async def memory_of_a_stream(address: str, effort: Effort, fresh_agent: Callable[[], int]) -> Result:
    """Kibibytes of the agent's resident memory for each open stream, measured in an agent that has just started.

    `fresh_agent` starts the agent anew and returns its PID.
    """
    repeats = []
    for _ in range(effort.agents):
        process = psutil.Process(fresh_agent())
        await _first_request(address)
        before = process.memory_info().rss
        async with _open_streams(address, effort.streams):
            repeats.append((process.memory_info().rss - before) / 1024 / effort.streams)
    return measured(f"workload_api_memory_per_stream_at_{effort.streams}", "KiB", repeats)


@asynccontextmanager
async def _open_streams(address: str, count: int) -> AsyncIterator[None]:
    """So many streams, each of which has had its first answer."""
    places = asyncio.Semaphore(_AT_ONCE)
    channels: list[grpc.aio.Channel] = []

    async def open_one() -> object:
        async with places:
            channel = grpc.aio.insecure_channel(address, options=_OWN_CONNECTION)
            channels.append(channel)
            call = _stream(channel)
            await call.read()
            return call

    try:
        calls = await asyncio.gather(*(open_one() for _ in range(count)))
        assert len(calls) == count
        yield
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
