"""Swapping the connection to the CA: hold, drain, swap, re-dial (hazard 23)."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import grpc.aio
import pytest

from livery.identity import X509Svid
from livery_agent.errors import CaUnavailable
from livery_agent.upstream.connection import CaConnection
from tests.fakes.clock import settle
from tests.pki import TestCa

CA = TestCa()
LONG = timedelta(seconds=10)


@dataclass
class Dialer:
    """A `CaDialer` without a network, whose channel is its own name."""

    svid: X509Svid | None
    log: list[str]
    broken: list[OSError] = field(default_factory=list)
    last_refusal: str | None = None
    may_close: asyncio.Event | None = None

    @property
    def name(self) -> str:
        return self.svid.id.path[1:] if self.svid else "nobody"

    async def start(self) -> grpc.aio.Channel:
        if self.broken:
            raise self.broken.pop(0)
        self.log.append(f"dial {self.name}")
        return cast("Any", self.name)

    async def close(self) -> None:
        if self.may_close is not None:
            await self.may_close.wait()
        self.log.append(f"close {self.name}")


@dataclass
class Dials:
    log: list[str] = field(default_factory=list)
    broken: list[OSError] = field(default_factory=list)  # what the next dials fail with
    may_close: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_close.set()

    def __call__(self, svid: X509Svid | None) -> Dialer:
        return Dialer(svid, self.log, self.broken, may_close=self.may_close)


OLD, NEW = CA.issue("/old"), CA.issue("/new")


async def test_before_there_is_an_identity_a_call_waits_and_then_gives_up():
    connection = CaConnection(Dials())
    with pytest.raises(CaUnavailable, match="no connection"):
        async with connection.line(timedelta(milliseconds=10)):
            raise AssertionError("there is no line")


async def test_a_call_that_waits_goes_out_once_there_is_an_identity():
    connection = CaConnection(Dials())

    async def call() -> object:
        async with connection.line(LONG) as line:
            return line.channel

    waiting = asyncio.create_task(call())
    await settle()
    await connection.swap(OLD)
    assert await waiting == "old"


async def test_hazard_23_a_swap_holds_new_calls_drains_the_old_ones_and_only_then_dials():
    dials = Dials()
    connection = CaConnection(dials)
    await connection.swap(OLD)
    may_end = asyncio.Event()

    async def call(name: str) -> object:
        async with connection.line(LONG) as line:
            dials.log.append(f"{name} on {line.channel}")
            if name == "first":
                await may_end.wait()
                dials.log.append("first ends")
            return line.channel

    first = asyncio.create_task(call("first"))
    await settle()
    swap = asyncio.create_task(connection.swap(NEW))
    await settle()
    second = asyncio.create_task(call("second"))
    await settle()
    assert not second.done(), "held while the swap is under way"
    may_end.set()
    await asyncio.gather(first, swap, second)
    assert dials.log == ["dial old", "first on old", "first ends", "close old", "dial new", "second on new"]


async def test_hazard_23_a_call_that_outlasts_the_drain_finds_its_line_superseded():
    connection = CaConnection(Dials(), drain=timedelta(milliseconds=10))
    await connection.swap(OLD)
    async with connection.line(LONG) as line:
        assert not connection.is_superseded(line)
        swap = asyncio.create_task(connection.swap(NEW))
        await settle()
        assert connection.is_superseded(line), "already while the swap waits for it"
        await swap
        assert connection.is_superseded(line)
    async with connection.line(LONG) as line:
        assert not connection.is_superseded(line)


async def test_swaps_that_overlap_come_one_after_the_other():
    dials = Dials()
    connection = CaConnection(dials)
    await asyncio.gather(*(connection.swap(svid) for svid in (OLD, NEW, OLD)))
    assert dials.log == ["dial old", "close old", "dial new", "close new", "dial old"]


async def test_a_dial_that_could_not_begin_is_begun_again_by_the_next_call():
    """No descriptor was left for the swap: the old line is gone, and nobody swaps again for half a life."""
    dials = Dials()
    connection = CaConnection(dials)
    await connection.swap(OLD)
    dials.broken = [OSError(errno.EMFILE, "Too many open files")] * 2
    await connection.swap(NEW)
    with pytest.raises(CaUnavailable, match="Too many open files"):
        async with connection.line(LONG):
            raise AssertionError("there is no line")
    async with connection.line(LONG) as line:
        assert cast("Any", line.channel) == "new"
    assert dials.log == ["dial old", "close old", "dial new"]


async def test_a_swap_that_is_given_up_leaves_the_line_it_found():
    connection = CaConnection(Dials())
    await connection.swap(OLD)
    async with connection.line(LONG):
        swap = asyncio.create_task(connection.swap(NEW))
        await settle()
        swap.cancel()
        await asyncio.gather(swap, return_exceptions=True)
    async with connection.line(LONG) as line:
        assert cast("Any", line.channel) == "old"


async def test_a_swap_that_is_given_up_while_the_old_line_is_closed_closes_it_to_the_end():
    """The agent is stopped in the middle of its renewal: half closed, a dialer keeps its sockets."""
    dials = Dials()
    dials.may_close.clear()
    connection = CaConnection(dials)
    await connection.swap(OLD)
    swap = asyncio.create_task(connection.swap(NEW))
    await settle()
    swap.cancel()
    await settle()
    assert not swap.done()
    dials.may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await swap
    await connection.close()
    assert dials.log == ["dial old", "close old", "dial new", "close new"]


async def test_of_many_calls_that_find_no_line_one_dials_and_all_have_it():
    dials = Dials(broken=[OSError(errno.EMFILE, "Too many open files")])
    connection = CaConnection(dials)
    await connection.swap(OLD)

    async def call() -> object:
        async with connection.line(LONG) as line:
            return line.channel

    assert await asyncio.gather(*(call() for _ in range(5))) == ["old"] * 5
    assert dials.log == ["dial old"]


async def test_after_the_end_there_is_no_line():
    dials = Dials()
    connection = CaConnection(dials)
    await connection.swap(OLD)
    await connection.close()
    await connection.close()
    assert dials.log == ["dial old", "close old"]
    with pytest.raises(CaUnavailable):
        async with connection.line(timedelta(milliseconds=10)):
            raise AssertionError("there is no line")
