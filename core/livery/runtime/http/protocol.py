"""uvicorn's HTTP/1.1 protocol, with a bound on everything a peer can make us wait for or keep.

Owns: the time for a request's head and body, the time a slow reader gets, the size of a head and the number of
pipelined requests. Does not own: HTTP itself (uvicorn, httptools), nor who the peer is (`connection`).

Invariant: no peer holds a connection without making progress; whatever it sends, the answer is 400, 408, 431 or the end
of the connection, never an exception.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from livery.errors import LiveryError
from livery.runtime.http.gate import Application, Gate, GateSettings, HttpPeer, tls_extension

_READ_AT_LEAST = 48 * 1024  # bytes, within `write_timeout`


@dataclass(frozen=True, slots=True)
class HttpBounds:
    """Bounds of one connection. Times in seconds, sizes in bytes."""

    head_timeout: float = 10.0  # from the first byte of a request (or from connecting) to the end of its head
    body_timeout: float = 60.0  # from the head's end to the body's
    write_timeout: float = 30.0  # a response of which the peer reads less than 48 KiB in that time
    keep_alive: float = 75.0  # idle between requests; longer than clients keep theirs, so that no request meets a close
    expired_grace: float = 10.0  # from the end of the peer's certificate to the end of what it still receives
    head_bytes: int = 32 * 1024
    headers: int = 100
    body_bytes: int = 1024 * 1024
    pipelined: int = 16


class HeadRefused(ValueError):
    """The head of a request is over the bounds, or names no host; never leaves this module."""


_TOO_LONG = (431, "Request head too long.")
_NO_HOST = (400, "A request names exactly one host.")


class HttpProtocol(HttpToolsProtocol):
    """One HTTP/1.1 connection of an identified peer."""

    def __init__(self, config: Config, state: tuple[ServerState, dict[str, Any]], peer: HttpPeer, parts: Parts) -> None:
        super().__init__(config, *state)
        self._peer = peer
        self._parts = parts
        self._bounds = parts.bounds
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._is_in_head = False
        self._refusal: tuple[int, str] | None = None
        self._head_bytes = 0
        self._unfinished_bytes = 0
        self.timeout_keep_alive = cast("int", parts.bounds.keep_alive)  # uvicorn hands it to call_later as it is

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Put the gate, which knows the peer, in front of the application."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        extension = tls_extension(tls, self._parts.server_pem, self._peer) if tls is not None else None
        self._gate = Gate(cast("Application", self.app), self._peer, self._parts.gate, extension)
        self.app = cast("Any", self._gate)
        self._end_with_identity()
        self._expect(self._bounds.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._expect(None)
        self.resume_writing()
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)
        self._gate.release()

    def recheck(self) -> None:
        """Close this connection if its peer's chain no longer verifies; a response under way is cut."""
        try:
            self._gate.require_current()
        except LiveryError:
            self.transport.abort()

    def _end_with_identity(self) -> None:
        """Requests after the certificate's end are refused one by one; what still streams is cut a little later."""
        ends = self._peer.expires_at
        if ends is not None:
            left = (ends - self._parts.gate.clock.now()).total_seconds()
            self._end = self.loop.call_later(max(left, 0.0) + self._bounds.expired_grace, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Parse, unless this connection is already being closed."""
        if self.transport.is_closing():
            return
        # What does not end (a header, a trailer, a chunk's extension) is not shown to us, so its bytes are counted as
        # they come; what is shown begins the count anew.
        self._unfinished_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unfinished_bytes > self._bounds.head_bytes:
            self._refusal = _TOO_LONG
            self.send_400_response("Invalid HTTP request received.")
        elif self._is_idle and self._deadline is None:
            # It was not the beginning of a request (an empty line, the rest of a body that nobody wanted), and uvicorn
            # has stopped its own clock.
            self._expect(self._bounds.keep_alive)

    def on_message_begin(self) -> None:
        """A request begins: its head has so long to come."""
        self._is_in_head = True
        self._head_bytes = 0
        self._unfinished_bytes = 0
        self._expect(self._bounds.head_timeout)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Part of the request's target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer: that counts, and is dropped, so that nobody takes it for a header."""
        self._count_head(len(name) + len(value))
        if not self._is_in_head:  # RFC 9110 6.5.1
            return
        if len(self.headers) >= self._bounds.headers:
            self._refuse_head(_TOO_LONG)
        super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        self._unfinished_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._bounds.head_bytes:
            self._refuse_head(_TOO_LONG)

    def on_headers_complete(self) -> None:
        """The head is here: the body has so long to come."""
        self._is_in_head = False
        self._require_one_host()
        if len(self.pipeline) >= self._bounds.pipelined:
            self.transport.abort()
            return
        self._expect(self._bounds.body_timeout)
        super().on_headers_complete()

    def _require_one_host(self) -> None:
        # RFC 9112 3.2. Otherwise a policy may judge by one host and the application answer for another.
        hosts = sum(name == b"host" for name, _ in self.headers)
        is_old = cast("Any", self.parser).get_http_version() == "1.0"
        if hosts > 1 or (hosts == 0 and not is_old):
            self._refuse_head(_NO_HOST)

    def _refuse_head(self, refusal: tuple[int, str]) -> NoReturn:
        self._refusal = refusal
        raise HeadRefused

    def on_message_complete(self) -> None:
        """The request is here whole."""
        self._expect(None)
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._unfinished_bytes = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; in the middle of a response there is no place for another one."""
        cycle = self._exchange
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self.transport.abort()
            return
        self._answer(*(self._refusal or (400, msg)))

    def _answer(self, status: int, text: str) -> None:
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        self.transport.write(STATUS_LINE[status] + head + text.encode("ascii"))
        self.transport.close()

    def pause_writing(self) -> None:
        """The peer does not read: it has so long to begin."""
        super().pause_writing()
        if self._stalled is None:
            self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self._bounds.write_timeout, self._cut_unless_read, waiting)

    def _cut_unless_read(self, waited: int) -> None:
        # All of a response may have been written at once: whoever reads that slowly does read.
        if waited - self.transport.get_write_buffer_size() < _READ_AT_LEAST:
            self.transport.abort()
        else:
            self._wait_for_reader()

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _unsupported_upgrade_warning(self) -> None:
        # The request itself is served; what would follow in another protocol is not read as HTTP.
        if self._exchange is not None:
            self._exchange.keep_alive = False

    @property
    def _is_idle(self) -> bool:
        return self._exchange is None or self._exchange.response_complete

    @property
    def _exchange(self) -> RequestResponseCycle | None:
        # uvicorn declares it as always there, and sets it with the first request.
        return cast("RequestResponseCycle | None", self.cycle)

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._is_idle and self._is_in_head:
            self._answer(408, "Request took too long.")
        elif self._is_idle:
            self.transport.close()
        else:
            self.transport.abort()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the connections of one server share."""

    bounds: HttpBounds
    gate: GateSettings
    server_pem: str
