"""One connection of an HTTP server, from accept to close: who it is, and the bytes of TLS.

Owns: the handshake, the peer it yields, the seat the connection takes, and a transport that encrypts what the HTTP
protocol above writes. Does not own: HTTP (`protocol`), nor what a peer may do.

TLS is driven here, over `TlsEngine`, because the event loops close a refused handshake without an alert and without
telling anybody. Invariants: the protocol above exists only once its peer is known, so not one byte reaches it before;
a connection that is refused is recorded with its reason, its alert is sent, and it is gone within `LINGER`; what was
written before a close is sent for as long as its peer goes on taking it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, cast

from livery.errors import Kind, LiveryError
from livery.runtime.caller import LOCAL_ADDRESS, address_of
from livery.runtime.http.gate import HttpPeer
from livery.runtime.transport.limits import Seat
from livery.runtime.transport.tls_engine import SLICE, TlsEngine

LINGER = 2.0  # seconds that a peer has to read our last bytes, from when the kernel has them all
PATIENCE = 30.0  # seconds without one of them being taken


class Above(Protocol):
    """The HTTP protocol of one identified peer."""

    def connection_made(self, transport: asyncio.Transport, /) -> None: ...  # noqa: D102 - as asyncio.Protocol
    def data_received(self, data: bytes, /) -> None: ...  # noqa: D102
    def eof_received(self) -> bool | None: ...  # noqa: D102
    def pause_writing(self) -> None: ...  # noqa: D102
    def resume_writing(self) -> None: ...  # noqa: D102
    def connection_lost(self, exc: Exception | None, /) -> None: ...  # noqa: D102


class Reception(Protocol):
    """The server's side of new connections; `address` is what `HttpPeer.address` will say."""

    @property
    def handshake_timeout(self) -> float:
        """Seconds from accept until the peer must be known."""
        ...

    def context(self) -> ssl.SSLContext:
        """The TLS context of this moment; raises what makes our identity unusable."""
        ...

    def seat(self, ip: str) -> Seat:
        """A seat for a connection whose peer is not yet known; raises `OverLimit`."""
        ...

    def identify(self, tls: ssl.SSLObject, address: str, seat: Seat) -> HttpPeer:
        """Who finished this handshake, seated accordingly; raises a `LiveryError` if they may not come in."""
        ...

    def process(self, sock: Any) -> tuple[HttpPeer, Seat]:
        """Which process is at the other end of this unix socket, seated; raises a `LiveryError`."""
        ...

    def refused(self, address: str, error: Exception) -> None:
        """Record that a connection was not let in, and why."""
        ...


class HandshakeTooSlow(LiveryError):
    """The TLS handshake was not finished in time."""

    code: ClassVar[str] = "handshake_timeout"
    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED


class Connection(asyncio.Protocol):
    """What both kinds of connection share: a seat, a peer once it is known, and the protocol above from then on."""

    def __init__(self, reception: Reception, protocol: Callable[[HttpPeer], Above]) -> None:
        self._reception = reception
        self._protocol = protocol
        self._seat: Seat | None = None
        self._carrier: Carrier | None = None
        self._above: Above | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The network is connected."""
        self._raw = cast("asyncio.Transport", transport)
        try:
            self._begin()
        except BaseException:
            self.abort()  # no clock runs for it
            raise

    def _begin(self) -> None:
        """Find out who it is."""

    def abort(self) -> None:
        """Close at once, whoever it is and however far it came."""
        self._raw.abort()

    def enter(self, peer: HttpPeer, carrier: Carrier) -> None:
        """The peer is known: from here on the HTTP protocol has the word."""
        self._carrier = carrier
        self._above = self._protocol(peer)
        self._above.connection_made(carrier)

    def eof_received(self) -> bool | None:
        """The peer will send nothing more; HTTP/1.1 has no half-open requests worth keeping."""
        if self._above is not None:
            self._above.eof_received()
        return None

    def pause_writing(self) -> None:
        """Pass it up."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass it up."""
        if self._above is not None:
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it up, and give the seat back."""
        if self._carrier is not None:
            self._carrier.is_lost = True
        if self._above is not None:
            self._above.connection_lost(exc)
        if self._seat is not None:
            self._seat.leave()


class LocalConnection(Connection):
    """A connection on a unix socket: the kernel knows who it is."""

    def _begin(self) -> None:
        """Identify the process, or refuse it."""
        try:
            peer, self._seat = self._reception.process(self._raw.get_extra_info("socket"))
        except (LiveryError, OSError) as error:
            self._reception.refused(LOCAL_ADDRESS, error)
            self._raw.abort()
            return
        self.enter(peer, Carrier(self._raw))

    def data_received(self, data: bytes) -> None:
        """Pass it up."""
        if self._above is not None:
            self._above.data_received(data)


class TlsConnection(Connection):
    """A TCP connection: a handshake, the peer's identity, then the HTTP protocol on a `TlsCarrier`."""

    def __init__(self, reception: Reception, protocol: Callable[[HttpPeer], Above]) -> None:
        super().__init__(reception, protocol)
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def _begin(self) -> None:
        """Take a seat and begin the handshake."""
        peer = self._raw.get_extra_info("peername")
        if not peer:  # it has gone again already
            self._raw.abort()
            return
        self._address = address_of(peer)
        try:
            self._seat = self._reception.seat(peer[0])
            self._engine = TlsEngine(self._reception.context(), server_side=True)
        except (LiveryError, ssl.SSLError, OSError) as error:
            self._is_refused = True
            self._reception.refused(self._address, error)
            self._raw.abort()
            return
        timeout = self._reception.handshake_timeout
        self._timer = asyncio.get_running_loop().call_later(timeout, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake, or decrypt and pass up; drop what a refused or closing peer still sends."""
        rest = memoryview(data)
        try:
            while rest and not self._is_over:
                self._engine.receive(bytes(rest[:SLICE]))
                rest = rest[SLICE:]
                self._progress()
        except ssl.SSLError as error:
            self._fail(error)

    @property
    def _is_over(self) -> bool:
        return self._is_refused or (self._carrier is not None and self._carrier.is_closing())

    def _progress(self) -> None:
        if self._above is None:
            self._shake()
        if self._above is not None and self._carrier is not None:
            for plaintext in self._engine.plaintext():
                self._above.data_received(plaintext)
            self._flush()
            if self._engine.ended:
                self._carrier.close()

    def _shake(self) -> None:
        is_complete = self._engine.handshake()
        self._flush()
        if not is_complete:
            return
        try:
            assert self._seat is not None
            peer = self._reception.identify(self._engine.tls, self._address, self._seat)
        except LiveryError as error:
            self._refuse(error)
            return
        self._cancel_timer()
        self.enter(peer, TlsCarrier(self._raw, self._engine))

    def _flush(self) -> None:
        if waiting := self._engine.outgoing():
            self._raw.write(waiting)

    def _fail(self, error: ssl.SSLError) -> None:
        if self._above is None:
            self._refuse(error)
        else:
            self._raw.abort()

    def _too_slow(self) -> None:
        timeout = self._reception.handshake_timeout
        self._refuse(HandshakeTooSlow("the TLS handshake took too long", why=f"the limit is {timeout:g} s"))

    def _refuse(self, error: Exception) -> None:
        self._is_refused = True
        self._cancel_timer()
        self._reception.refused(self._address, error)
        self._raw.write(self._engine.say_goodbye())
        linger(self._raw)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def eof_received(self) -> bool | None:
        """The peer will send nothing more."""
        if self._above is None and not self._is_refused:
            self._is_refused = True
            self._reception.refused(self._address, ssl.SSLEOFError("the peer left during the TLS handshake"))
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._cancel_timer()
        super().connection_lost(exc)


def linger(raw: asyncio.Transport) -> None:
    """Close so that the last bytes arrive.

    With unread bytes in our buffer, a plain close would reset the connection, and the peer would lose what we said last
    (a TLS alert, a 413).
    """
    if raw.is_closing():
        return
    if not raw.can_write_eof():
        raw.close()
        return
    try:
        raw.write_eof()
    except OSError:  # the peer has reset the connection: nothing arrives any more
        raw.abort()
        return
    raw.resume_reading()
    loop = asyncio.get_running_loop()

    def end(left: int, until: float) -> None:
        still = raw.get_write_buffer_size()
        if still < left:
            until = loop.time() + PATIENCE
        if still and loop.time() < until:
            loop.call_later(LINGER, end, still, until)
        else:
            raw.abort()

    loop.call_later(LINGER, end, raw.get_write_buffer_size(), loop.time() + PATIENCE)


class Carrier(asyncio.Transport):
    """What the HTTP protocol writes to: the connection below, closed so that the last bytes arrive."""

    def __init__(self, raw: asyncio.Transport) -> None:
        super().__init__()
        self._raw = raw
        self._is_closing = False
        self.is_lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; after `close`, drop."""
        if not self.is_closing():
            self._raw.write(data)

    def close(self) -> None:
        """Send what is buffered, then close."""
        if not self.is_closing():
            self._is_closing = True
            linger(self._raw)

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        """Whether writing is pointless."""
        return self._is_closing or self.is_lost or self._raw.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the connection below knows."""
        return self._raw.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Read nothing more from the network; what is already here still arrives."""
        if not self.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self.is_closing():
            self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Bounds of what waits to be sent, in bytes."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return self._raw.get_write_buffer_size()


class TlsCarrier(Carrier):
    """A carrier that encrypts. What is written in one turn of the loop leaves together: a head and its small body are
    one TLS record and one system call.
    """

    def __init__(self, raw: asyncio.Transport, engine: TlsEngine) -> None:
        super().__init__(raw)
        self._engine = engine
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; after `close`, drop."""
        if self.is_closing() or not data:
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(bytes(data))
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= SLICE:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting or self.is_lost or self._raw.is_closing():
            return
        plaintext = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        try:
            self._raw.write(self._engine.encrypt(plaintext))
        except ssl.SSLError:
            self.abort()

    def close(self) -> None:
        """Send what is buffered, say goodbye in TLS, then close."""
        if not self.is_closing():
            self._flush()
        if not self.is_closing():
            self._raw.write(self._engine.say_goodbye())
            super().close()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return super().get_write_buffer_size() + self._waiting_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What TLS knows (`ssl_object`, `sslcontext`), and what the connection below knows."""
        if name == "ssl_object":
            return self._engine.tls
        if name == "sslcontext":
            return self._engine.tls.context
        return super().get_extra_info(name, default)
