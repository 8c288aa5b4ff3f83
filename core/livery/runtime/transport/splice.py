"""Two connections made into one: what arrives at either end leaves at the other.

Owns: an end, backpressure between two of them, and how they are closed so that the last bytes arrive. Does not own:
TLS (`tls_end`), who is at an end, or whether two ends may be joined.

Invariants: an end hands over not one byte before it is joined; it stops reading while the other one cannot write, so
at most a buffer and one read are held per direction; an end that was told to close is gone within its `linger`,
whatever its peer does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import ClassVar, Protocol, cast

_ACCEPTING = 5  # turns of the event loop that may lie between a socket's accept and its protocol's `connection_made`


class Watcher(Protocol):
    """Who is told about an end: the front door's or the dialer's part in one connection."""

    def made(self, end: End, /) -> None:
        """The end is connected and holds still; a TLS end waits for `secure`."""
        ...

    def lost(self, end: End, /) -> None:
        """The end is gone."""
        ...


class End(asyncio.Protocol):
    """One end of a splice, plain. `buffered` is how many bytes may wait to be sent before the other end is held."""

    linger: ClassVar[float] = 2.0  # seconds that a peer has to read our last bytes

    def __init__(self, buffered: int, watcher: Watcher | None = None) -> None:
        self._buffered = buffered
        self._watcher = watcher
        self._transport: asyncio.Transport | None = None
        self._other: End | None = None
        self._closing = False
        self._has_ended_writing = False
        self._has_peer_ended = False
        self._early = b""
        self.is_full = False

    @property
    def transport(self) -> asyncio.Transport:
        """The connection below; only once `made` was called."""
        assert self._transport is not None
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold still until joined."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._buffered)
        self._transport.pause_reading()
        if self._watcher is None:
            return
        try:
            self._watcher.made(self)
        except BaseException:
            self.abort()  # held as it is, it would not even see its peer go
            raise

    def join(self, other: End) -> None:
        """Send what the other end reads; called once for each of the two, then `flow`."""
        self._other = other
        if self.is_full:
            other.hold()

    def flow(self) -> None:
        """Begin to hand over."""
        if self._other is None:
            return
        early, self._early = self._early, b""
        self._other.send(early)
        if not self._other.is_full:
            self.let_go()

    def hold(self) -> None:
        """Read nothing for now."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def let_go(self) -> None:
        """Read again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Write to the peer."""
        if not self._closing:
            self._write(data)

    def end_writing(self) -> None:
        """The other end will send nothing more: say so to the peer, which may still be sending."""
        if not self._has_ended_writing and not self.transport.is_closing() and self.transport.can_write_eof():
            self._has_ended_writing = True
            self.transport.write_eof()

    def close(self) -> None:
        """Send what is buffered and close; whatever the peer does, the end is gone after `linger`."""
        if self._transport is None or self._closing:
            return
        self._closing = True
        self._close_other()
        self._transport.close()
        asyncio.get_running_loop().call_later(self.linger, self._transport.abort)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand over what came."""
        if self._closing:
            return
        if self._other is None:  # uvloop begins to read after `connection_made`, whatever that asked for
            self._early += data
            self.hold()
        else:
            self._other.send(data)

    def eof_received(self) -> bool:
        """The other direction may finish what it is saying. No longer: HTTP/2 has no use for a connection half closed,
        and of a peer that says nothing more, one that closed looks just like one that only stopped sending.
        """
        self._has_peer_ended = True
        if self._other is None:
            return False
        self._other.end_writing()
        asyncio.get_running_loop().call_later(self.linger, self.close)
        return not self._has_ended_writing

    def pause_writing(self) -> None:
        """The peer reads too slowly: read nothing more for it."""
        self.is_full = True
        if self._other is not None:
            self._other.hold()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.is_full = False
        if self._other is not None:
            self._other.let_go()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own signature
        """The other end has nobody to talk to any more."""
        self._closing = True
        self._close_other()
        if self._watcher is not None:
            self._watcher.lost(self)

    def _write(self, data: bytes) -> None:
        if data and not self._has_ended_writing and not self.transport.is_closing():
            self.transport.write(data)

    def _close_other(self) -> None:
        if self._other is not None:
            self._other.close()


async def serving(listener: asyncio.Server) -> asyncio.Server:
    """Accept from now on (`listener` was made with `start_serving=False`); cancelled meanwhile, leave nothing open.

    When the loop makes a listener and starts it in one, nobody has it yet who could close it.
    """
    try:
        await listener.start_serving()
    except BaseException:
        await close_listener(listener)
        raise
    return listener


async def close_listener(listener: asyncio.Server) -> None:
    """Accept nothing more, let those report that were accepted a moment before, and close.

    In this order, because asyncio before 3.12 drops a connection unclosed that it accepted in the turn of the close.
    """
    loop = asyncio.get_running_loop()
    for sock in listener.sockets:
        loop.remove_reader(sock.fileno())
    try:
        for _ in range(_ACCEPTING):
            await asyncio.sleep(0)
    finally:
        listener.close()


class Census:
    """The ends that are open, so that all of them can be closed. A watcher, or part of one."""

    def __init__(self) -> None:
        self._ends: set[End] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def made(self, end: End, /) -> None:
        """One more."""
        self._ends.add(end)
        self._empty.clear()

    def lost(self, end: End, /) -> None:
        """One less."""
        self._ends.discard(end)
        if not self._ends:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until none is open."""
        await self._empty.wait()

    async def close(self, patience: float = 0.5) -> None:
        """Close every end, those that are not gone after `patience` seconds by force, and wait until they are.

        Call it after `close_listener`, so that none is made any more.
        """
        for end in tuple(self._ends):
            end.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self.empty()
        finally:
            for end in tuple(self._ends):
                end.abort()
        await self.empty()
