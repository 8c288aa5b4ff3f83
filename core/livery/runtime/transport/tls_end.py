"""An end of a splice that speaks TLS on the wire.

Owns: the handshake, encryption and decryption between the wire and the other end, and saying goodbye so that the peer
hears why. Does not own: which context (`tls_contexts`), or whether the peer is wanted: its watcher decides that between
`shaken` and `join`.

Invariants: nothing decrypted is handed over before the end is joined; an alert of ours is sent before the connection
ends, and the peer's is reported.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

from livery.runtime.transport.http2_frames import FrameCursor
from livery.runtime.transport.splice import End, Watcher
from livery.runtime.transport.tls_engine import SLICE, TlsEngine


class TlsWatcher(Watcher, Protocol):
    """Who is told about a TLS end."""

    def shaken(self, end: TlsEnd, /) -> None:
        """The TLS handshake is complete; nothing was handed over yet."""
        ...

    def failed(self, end: TlsEnd, error: ssl.SSLError, /) -> None:
        """TLS failed, before or after the handshake. The end sends its alert and closes by itself."""
        ...

    def received(self, end: TlsEnd, /) -> None:
        """The first decrypted byte has come."""
        ...


class TlsEnd(End):
    """One end of a splice, with TLS on the wire. The watcher gives it its engine in `made`."""

    def __init__(self, buffered: int, watcher: TlsWatcher) -> None:
        super().__init__(buffered, watcher)
        self._tls_watcher = watcher
        self._engine: TlsEngine | None = None
        self._is_shaken = False
        self._has_received = False
        self._frames: FrameCursor | None = None
        self.has_left_first = False  # our side said goodbye, and the peer had not

    def secure(self, engine: TlsEngine) -> None:
        """Begin the handshake."""
        self._engine = engine
        if engine.tls.server_side:
            self._frames = FrameCursor()
        self.let_go()
        self._shake()

    @property
    def tls(self) -> ssl.SSLObject:
        """The connection's TLS, to ask who the peer is."""
        return self._secured.tls

    @property
    def _secured(self) -> TlsEngine:
        assert self._engine is not None
        return self._engine

    def flow(self) -> None:
        """Begin to hand over, with what came together with the handshake's end."""
        early, self._early = self._early, b""
        if not self.transport.is_closing():
            self._read(early)
        super().flow()

    def send(self, data: bytes) -> None:
        """Encrypt and write to the peer."""
        if self._closing:
            return
        framed = data if self._frames is None else self._frames.pass_through(data)
        try:
            sealed = self._secured.encrypt(framed)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._write(sealed)

    def go_away(self) -> None:
        """Ask the peer, in HTTP/2's words, to make its next calls on a new connection; calls under way go on."""
        if self._frames is not None:
            self._frames.request_goaway()
            self.send(b"")

    def end_writing(self) -> None:
        """Say goodbye in TLS, and in TCP."""
        if not self._closing:
            self._leave()
            self._write(self._secured.say_goodbye())
            super().end_writing()

    def close(self) -> None:
        """Say goodbye and close. What the peer still sends is read and dropped: unread bytes would make TCP reset the
        connection, and the peer lose the alert that tells it why.
        """
        if self._transport is None or self._closing:
            return
        self._leave()
        self._closing = True
        self._close_other()
        if self._engine is not None:
            self._write(self._engine.say_goodbye())
        if self._has_peer_ended:
            self._transport.close()
        else:
            super().end_writing()
            self.let_go()
        asyncio.get_running_loop().call_later(self.linger, self._transport.abort)

    def _leave(self) -> None:
        has_peer_left = self._has_peer_ended or (self._engine is not None and self._engine.ended)
        self.has_left_first = self.has_left_first or not has_peer_left

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake, or decrypt and hand over."""
        if not self._is_shaken and not self._closing:
            data = self._shake_with(data)
        if self._closing:
            return
        if self._other is None:
            self._early += data
        else:
            self._read(data)

    def resume_writing(self) -> None:
        """The peer has caught up, also with what TLS itself had to say."""
        super().resume_writing()
        if self._other is not None and not self._other.is_full:
            self.let_go()

    def eof_received(self) -> bool:
        """The peer's TCP is done sending; TLS may not have said so, which HTTP/2 notices by itself."""
        self._has_peer_ended = True
        if self._engine is None or self._closing:
            return False
        self._secured.receive_eof()
        if not self._is_shaken:
            self._shake()
            return not self.transport.is_closing()
        self._read(b"")
        return super().eof_received()

    def _shake_with(self, data: bytes) -> bytes:
        """Go on with the handshake, and return what came after its end."""
        for start in range(0, len(data), SLICE):
            self._secured.receive(data[start : start + SLICE])
            self._shake()
            if self._is_shaken or self._closing:
                return data[start + SLICE :]
        return b""

    def _shake(self) -> None:
        try:
            self._is_shaken = self._secured.handshake()
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        if self._is_shaken:
            self._tls_watcher.shaken(self)

    def _read(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while True:
                self._secured.receive(bytes(rest[:SLICE]))
                self._hand_over()
                rest = rest[SLICE:]
                if not rest:
                    break
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        if self._secured.ended and self._other is not None:
            self._other.end_writing()

    def _hand_over(self) -> None:
        if self._other is None:
            return  # the rest is kept as ciphertext until joined; reading is held meanwhile
        for plaintext in self._secured.plaintext():
            if not self._has_received:
                self._has_received = True
                self._tls_watcher.received(self)
            self._other.send(plaintext)

    def _flush(self) -> None:
        answer = self._secured.outgoing()
        self._write(answer)
        if answer and self.is_full:
            self.hold()  # a peer can make TLS itself answer (TLS 1.3's KeyUpdate) without reading a byte of it

    def _fail(self, error: ssl.SSLError) -> None:
        self._tls_watcher.failed(self, error)
        self.close()
