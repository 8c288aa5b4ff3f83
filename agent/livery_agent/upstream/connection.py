"""The one authenticated connection to the CA, replaced as a whole when this node gets a new SVID.

Owns: handing out the channel to one call at a time, and the swap: hold new calls, drain those under way, dial anew,
let go on (hazard 23). Does not own: TLS and the check of the CA's ID (`livery.runtime.dialer`), nor what is called
(`calls`).

Invariants: no call begins on a connection that is being replaced; the old connection is closed before the first call
on the new one, because that call makes the CA forget the old SVID; a call knows whether its connection has been
superseded; a dial that could not even begin (no descriptor left, no room for a socket) is begun again by the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import grpc.aio

from livery.errors import LiveryError
from livery.identity import X509Svid
from livery.runtime.completion import whole
from livery_agent.errors import CaUnavailable

DRAIN = timedelta(seconds=10)


class CaDialer(Protocol):
    """What is needed of `livery.runtime.dialer.Dialer`."""

    @property
    def last_refusal(self) -> str | None:
        """Why the last dial failed, if it did."""
        ...

    async def start(self) -> grpc.aio.Channel:
        """Open a channel; it connects when first used."""
        ...

    async def close(self) -> None:
        """Close it and everything under way on it."""
        ...


async def opened(dialer: CaDialer) -> grpc.aio.Channel:
    """The dialer's channel; raises `CaUnavailable` if this machine has nothing left to open one with."""
    try:
        return await dialer.start()
    except OSError as cause:
        raise CaUnavailable("no connection to the CA can be opened", why=cause.strerror or str(cause)) from cause


Dial = Callable[[X509Svid], CaDialer]
"""A dialer to the CA that presents this SVID."""


@dataclass(frozen=True, slots=True)
class Line:
    """A channel that is open now. Its number grows with each swap."""

    channel: grpc.aio.Channel
    dialer: CaDialer
    number: int


class CaConnection:
    """Holds the current line; `swap` replaces it, `line` lends it for one call."""

    def __init__(self, dial: Dial, drain: timedelta = DRAIN) -> None:
        self._dial = dial
        self._drain = drain
        self._svid: X509Svid | None = None
        self._line: Line | None = None
        self._numbers = 0
        self._calls = 0
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._swapping = asyncio.Lock()
        self._decided = asyncio.Event()
        self._decided.set()

    @property
    def last_refusal(self) -> str | None:
        """Why the current line's last dial failed, if it did."""
        return self._line.dialer.last_refusal if self._line else None

    def is_superseded(self, line: Line) -> bool:
        """Whether the line was replaced (or is about to be) since it was lent."""
        return self._line is None or self._line.number != line.number or not self._open.is_set()

    @contextmanager
    def awaiting_another(self) -> Iterator[None]:
        """While this node attests anew: the CA may forget the current line's SVID before its successor is here."""
        self._decided.clear()
        try:
            yield
        finally:
            self._decided.set()

    async def decided(self) -> None:
        """Wait until it is known whether the current line will be replaced; at once if nothing is under way."""
        await self._decided.wait()

    @asynccontextmanager
    async def line(self, wait: timedelta) -> AsyncIterator[Line]:
        """The current line for one call; during a swap, the new one. Raises `CaUnavailable` after `wait`."""
        try:
            async with asyncio.timeout(wait.total_seconds()):
                current = await self._current()
        except TimeoutError as cause:
            why = "it is being replaced" if self._svid else "this node has no identity yet"
            raise CaUnavailable("there is no connection to the CA", why=why) from cause
        self._calls += 1
        self._idle.clear()
        try:
            yield current
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def swap(self, svid: X509Svid) -> None:
        """Call under this SVID from now on. Calls that outlast the drain are cut off, and retried by who made them."""
        async with self._swapping:
            self._open.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._drain.total_seconds()):
                    await self._idle.wait()
            await whole(self._replace(svid))

    async def close(self) -> None:
        """End the connection; calls under way fail, later ones wait in vain."""
        async with self._swapping:
            self._open.clear()
            self._svid = None
            await whole(self._hang_up())

    async def _current(self) -> Line:
        """The line, once there is one that is not being replaced."""
        while self._line is None or not self._open.is_set():
            if self._svid is None:
                await self._open.wait()
                continue
            async with self._swapping:  # 1. A swap is under way: wait for its end.
                if self._line is not None:  # 2. It was given up before it closed anything.
                    self._open.set()
                elif self._svid is not None:  # 3. Its dial could not begin.
                    await whole(self._connect(self._svid))
        return self._line

    async def _replace(self, svid: X509Svid) -> None:
        await self._hang_up()
        self._svid = svid
        with suppress(LiveryError):  # the next call tries again, and says why if it fails too
            await self._connect(svid)

    async def _connect(self, svid: X509Svid) -> None:
        dialer = self._dial(svid)
        self._line = Line(await opened(dialer), dialer, self._numbers + 1)
        self._numbers += 1
        self._open.set()

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.dialer.close()
