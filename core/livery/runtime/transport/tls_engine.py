"""TLS on buffers: ciphertext in, plaintext out, and the other way round.

Owns: one `SSLObject` between two memory BIOs. Does not own: sockets, contexts (`tls_contexts`) or what the peer's
certificate means (`peer`).

We drive TLS ourselves because the event loops, when they do, close a refused handshake without sending the alert or
telling anybody. Invariant: whatever `outgoing` holds after a failure, the alert included, is there to be sent.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress

# A memory BIO keeps the largest size it ever had, so a long idle connection must never have been fed much at once.
SLICE = 16 * 1024


class TlsEngine:
    """One side of one TLS connection. Methods raise `ssl.SSLError`."""

    __slots__ = ("_incoming", "_outgoing", "ended", "tls")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name)
        self.ended = False

    def receive(self, ciphertext: bytes) -> None:
        """Take bytes from the network; they are looked at by `handshake` or `plaintext`."""
        if ciphertext:
            self._incoming.write(ciphertext)

    def receive_eof(self) -> None:
        """The network will bring nothing more."""
        self._incoming.write_eof()

    def handshake(self) -> bool:
        """Go on with the handshake as far as the bytes reach; True once it is complete."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def plaintext(self) -> Iterator[bytes]:
        """What can be read now; sets `ended` when the peer said that it will send no more."""
        while not self.ended:
            try:
                data = self.tls.read(SLICE)
            except ssl.SSLWantReadError:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                self.ended = True
                return
            yield data
            if not self._incoming.pending and not self.tls.pending():
                return  # to read on would end the same way, by an exception

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the ciphertext to send for these bytes, after whatever was waiting to be sent."""
        parts = []
        rest = memoryview(plaintext)
        while rest:
            rest = rest[self.tls.write(rest[:SLICE]) :]
            parts.append(self._outgoing.read())
        return b"".join(parts)

    def outgoing(self) -> bytes:
        """Return what waits to be sent: handshake messages, tickets, alerts."""
        return self._outgoing.read()

    def say_goodbye(self) -> bytes:
        """Return what to send last: a close_notify after a finished handshake, or the alert that ended it."""
        # It wants the peer's own close_notify, or there was no connection: either way what is to be sent is written.
        with suppress(ssl.SSLError, ValueError):
            self.tls.unwrap()
        return self._outgoing.read()
