"""A TLS end of a splice, between a real TLS peer and a plain end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from livery.identity import BundleMap
from livery.runtime.transport.splice import Census, End
from livery.runtime.transport.tls_contexts import server_context
from livery.runtime.transport.tls_end import TlsEnd
from livery.runtime.transport.tls_engine import SLICE, TlsEngine
from tests.fakes.tls import key_updates
from tests.pki import TestCa

BUFFERED = 16 * 1024


class Watching(Census):
    """A watcher that notes what it is told."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context
        self.told: list[str] = []
        self.error: ssl.SSLError | None = None

    def made(self, end: End, /) -> None:
        super().made(end)
        if isinstance(end, TlsEnd):
            end.secure(TlsEngine(self._context, server_side=True))

    def shaken(self, end: TlsEnd) -> None:
        self.told.append("shaken")

    def failed(self, end: TlsEnd, error: ssl.SSLError) -> None:
        self.told.append("failed")
        self.error = error

    def received(self, end: TlsEnd) -> None:
        self.told.append("received")


class Wire:
    """A TLS peer on a socket pair, the end under test, and a plain end with a socket behind it."""

    def __init__(self, watcher: Watching, keylog: Path) -> None:
        self.watcher = watcher
        ours, self.wire = socket.socketpair()
        inside, self.behind = socket.socketpair()
        for sock in (ours, self.wire, inside, self.behind):
            sock.setblocking(False)
        self._socks = ours, inside
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        context.keylog_filename = str(keylog)
        self.peer = TlsEngine(context, server_side=False)

    async def __aenter__(self) -> Wire:
        loop = asyncio.get_running_loop()
        _, self.outer = await loop.create_unix_connection(lambda: TlsEnd(BUFFERED, self.watcher), sock=self._socks[0])
        _, self.inner = await loop.create_unix_connection(lambda: End(BUFFERED, self.watcher), sock=self._socks[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.watcher.close(patience=0)
        self.wire.close()
        self.behind.close()

    async def shake(self) -> None:
        """The whole handshake; the end is held afterwards by nobody."""
        while not self.peer.handshake():
            await self._send(self.peer.outgoing())
            self.peer.receive(await self._recv(self.wire))
        await self._send(self.peer.outgoing())
        async with asyncio.timeout(5):
            while not self.watcher.told:
                await asyncio.sleep(0.001)

    def join(self) -> None:
        self.outer.join(self.inner)
        self.inner.join(self.outer)
        self.inner.flow()
        self.outer.flow()

    async def say(self, data: bytes) -> None:
        await self._send(self.peer.encrypt(data))

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.wire, data)

    async def heard(self) -> bytes:
        return await self._recv(self.behind)

    async def _recv(self, sock: socket.socket) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), 5)


@pytest.fixture
async def wire(tmp_path):
    ca = TestCa()
    context = server_context(ca.issue("/a"), BundleMap.of(ca.bundle()))
    async with Wire(Watching(context), tmp_path / "keys") as wired:
        yield wired


async def test_what_comes_between_handshake_and_splice_is_kept_and_not_handed_over(wire):
    await wire.shake()
    await wire.say(b"too early")
    async with asyncio.timeout(5):
        while not wire.outer._early:
            await asyncio.sleep(0.001)
    assert wire.watcher.told == ["shaken"]
    wire.join()
    assert await wire.heard() == b"too early"
    assert wire.watcher.told == ["shaken", "received"]


async def test_both_directions_are_translated(wire):
    await wire.shake()
    wire.join()
    await wire.say(b"there")
    assert await wire.heard() == b"there"
    await asyncio.get_running_loop().sock_sendall(wire.behind, b"back")
    wire.peer.receive(await wire._recv(wire.wire))
    assert list(wire.peer.plaintext()) == [b"back"]


async def test_the_peers_goodbye_ends_what_is_behind_and_the_way_back_goes_on(wire):
    await wire.shake()
    wire.join()
    await wire._send(wire.peer.say_goodbye())
    assert await wire.heard() == b""
    await asyncio.get_running_loop().sock_sendall(wire.behind, b"\0\0\0\4\0\0\0\0\0")
    assert await wire._recv(wire.wire)


async def test_closing_one_end_closes_the_other_at_once(wire):
    await wire.shake()
    wire.join()
    wire.outer.close()
    assert wire.inner.transport.is_closing()


async def test_an_end_that_was_held_reads_on_once_it_is_closed_so_that_it_sees_its_peer_go(wire):
    """A refused peer may still be sending: what it sends is dropped, and its end ends the connection."""
    wire.outer.linger = 60.0
    await wire.shake()
    wire.outer.hold()
    await wire.say(b"x" * 1000)
    wire.outer.close()
    assert await wire._recv(wire.wire)  # the goodbye
    wire.wire.close()
    async with asyncio.timeout(5):
        while wire.outer in wire.watcher._ends:
            await asyncio.sleep(0.001)


async def test_an_end_that_is_closed_is_gone_although_its_peer_stays(wire):
    wire.outer.linger = 0.1
    await wire.shake()
    wire.outer.close()
    async with asyncio.timeout(5):
        while wire.outer in wire.watcher._ends:
            await asyncio.sleep(0.001)


async def test_a_peers_alert_is_told_and_ends_both(wire):
    await wire.shake()
    wire.join()
    await wire._send(b"\x17\x03\x03\x00\x10" + bytes(16))  # a record that nobody sealed
    assert await wire.heard() == b""
    assert wire.watcher.told == ["shaken", "failed"]
    assert wire.watcher.error is not None
    wire.peer.receive(await wire._recv(wire.wire))
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        list(wire.peer.plaintext())


async def test_garbage_in_place_of_a_handshake_is_answered_by_an_alert(wire):
    await wire._send(b"GET / HTTP/1.1\r\n\r\n")
    answer = await wire._recv(wire.wire)
    assert answer == b"" or answer[0] == 21  # OpenSSL has no alert for HTTP
    assert wire.watcher.told == ["failed"]


async def test_much_that_comes_with_the_handshakes_end_is_not_held_by_openssl(wire, monkeypatch):
    """A memory BIO never shrinks: a stranger's idle connection would keep as much as it once sent at once."""
    fed = []
    receive = TlsEngine.receive
    monkeypatch.setattr(TlsEngine, "receive", lambda self, data: (fed.append(len(data)), receive(self, data))[1])
    much = b"x" * 100_000
    while not wire.peer.handshake():
        await wire._send(wire.peer.outgoing())
        wire.peer.receive(await wire._recv(wire.wire))
    await wire._send(wire.peer.outgoing() + wire.peer.encrypt(much))
    async with asyncio.timeout(5):
        while not wire.watcher.told:
            await asyncio.sleep(0.001)
    wire.join()
    heard = b""
    while len(heard) < len(much):
        heard += await wire.heard()
    assert heard == much
    assert max(fed) <= SLICE


async def test_a_peer_that_makes_tls_answer_and_does_not_read_is_not_read_from_until_it_does(wire, tmp_path):
    number = 4000
    for sock in (wire.wire, wire._socks[0]):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await wire.shake()
    wire.join()
    asked, waiting = key_updates(tmp_path / "keys", number), []
    write = wire.outer._write
    wire.outer._write = lambda data: (write(data), waiting.append(wire.outer.transport.get_write_buffer_size()))
    sending = asyncio.create_task(wire._send(asked))
    async with asyncio.timeout(5):
        while not wire.outer.is_full:
            await asyncio.sleep(0)
    for _ in range(200):  # turns of the loop in which it could send on
        await asyncio.sleep(0)
    assert not sending.done()
    answered = 0
    while answered < len(asked) * (number - 1) // number:  # each answer is as long as its question
        answered += len(await wire._recv(wire.wire))
    await sending
    assert max(waiting) < 4 * BUFFERED
