"""The dialer: it speaks to the expected peer only, as who it is now, and says why it could not."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from livery.identity import BundleMap
from livery.runtime.transport.tls_end import TlsEnd
from tests.integration.doors import SERVER, Shown, dialer_to, echo, eventually, real_ca, tls_door
from tests.pki import Twist, new_key


async def refusal_of(dialer) -> tuple[str, grpc.aio.AioRpcError]:
    """Dial in vain; return the dialer's word for it and grpc's error."""
    channel = await dialer.start()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo(channel, timeout=2.0)
        await eventually(lambda: dialer.last_refusal is not None)
        return str(dialer.last_refusal), caught.value
    finally:
        await dialer.close()


@asynccontextmanager
async def tls_server(tmp_path, shown: Shown, alpn=("h2",), answer=b"", may_end: asyncio.Event | None = None):
    """A server that shows any chain and sends one answer; it ends a connection at its first byte, or when it may."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.write_to(tmp_path / "server.pem"))
    context.set_alpn_protocols(list(alpn))
    heard = bytearray()

    async def serve(reader, writer):
        writer.write(answer)
        heard.extend(await reader.read(65536))
        if may_end is not None:
            await may_end.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1], heard


async def test_the_dialers_word_is_none_once_a_peer_has_answered(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room:
        dialer = room.dialer(ca.issue("/a"), ca.bundle())
        channel = await dialer.start()
        room.identity.held, sound = real_ca().issue(SERVER), room.identity.held
        with pytest.raises(grpc.aio.AioRpcError):
            await echo(channel)
        assert dialer.last_refusal is not None
        room.identity.held = sound
        assert await channel.unary_unary("/test.Echo/Echo")(b"hello", wait_for_ready=True, timeout=10) == b"hello"
        assert dialer.last_refusal is None
        await dialer.close()


async def test_a_peer_whose_machine_is_gone_is_noticed_by_tcp(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room:
        dialer = room.dialer(ca.issue("/a"), ca.bundle())
        await echo(await dialer.start())
        (outer,) = [end for end in dialer._open.census._ends if isinstance(end, TlsEnd)]
        sock = outer.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        await dialer.close()


async def test_without_an_svid_no_certificate_is_shown(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room, room.dial(None, ca.bundle()) as channel:
        await echo(channel)
        assert room.service.callers[0].is_anonymous


async def test_a_new_dial_shows_the_new_svid(tmp_path):
    ca, banned = real_ca(), [False]
    held = [ca.issue("/a")]
    async with (
        tls_door(tmp_path, ca, admits_id=lambda _id: "for a moment" if banned[0] else None) as room,
        room.dial(None, ca.bundle(), identity=lambda: held[0]) as channel,
    ):
        await echo(channel)
        first, held[0] = held[0], ca.issue("/a")
        await echo(channel)
        assert {caller.identity.serial for caller in room.service.callers} == {first.serial}
        banned[0] = True
        await room.door.recheck()  # closes the connection
        await eventually(lambda: room.door.connections == 0)
        banned[0] = False
        await echo_at_last(channel)
        assert room.service.callers[-1].identity.serial == held[0].serial


async def echo_at_last(channel) -> None:
    """Call until a call succeeds: the channel may not have noticed yet that its connection is gone."""
    async with asyncio.timeout(10):
        while True:
            try:
                await channel.unary_unary("/test.Echo/Echo")(b"", wait_for_ready=True)
            except grpc.aio.AioRpcError:
                continue
            return


class TestRefusingThePeer:
    """Not one byte of grpc's goes to somebody else."""

    async def test_another_id_of_the_same_domain(self, tmp_path):
        ca = real_ca()
        svid = ca.issue("/impostor")
        async with tls_server(tmp_path, Shown(svid.chain, svid.private_key)) as (port, heard):
            dialer = dialer_to(f"127.0.0.1:{port}", None, ca.bundle(), run_dir=tmp_path)
            refusal, error = await refusal_of(dialer)
            assert refusal == (
                "this is not the expected peer: it is spiffe://example.org/impostor,"
                " expected was spiffe://example.org/spire/server"
            )
            assert refusal in dialer.explain(error)
            assert heard == b""

    async def test_an_authority_nobody_knows(self, tmp_path):
        ca, other = real_ca(), real_ca()
        async with tls_door(tmp_path, other) as room:
            refusal, _ = await refusal_of(room.dialer(ca.issue("/a"), ca.bundle()))
            assert refusal.startswith("its certificate is not accepted")
            await eventually(lambda: "tls_failed" in room.reasons)
            assert any("unknown ca" in str(event["why"]) for event in room.audit.events)  # our alert arrived
            assert room.has_let_nobody_in()

    async def test_the_expected_id_minted_by_a_domain_we_also_know(self, tmp_path):
        """theirs -> leaf with the ID of our server; the dialer holds both bundles."""
        ours, theirs = real_ca(), real_ca("partner.test")
        key = new_key()
        leaf = theirs.sign_leaf(f"spiffe://example.org{SERVER}", Twist(key=key))
        async with tls_server(tmp_path, Shown((leaf,), key)) as (port, heard):
            both = BundleMap.of(ours.bundle(), theirs.bundle())
            dialer = dialer_to(f"127.0.0.1:{port}", None, ours.bundle(), bundles=lambda: both, run_dir=tmp_path)
            refusal, _ = await refusal_of(dialer)
            assert refusal.startswith("its certificate is not accepted")
            assert heard == b""

    async def test_a_leaf_that_openssl_accepts_and_spiffe_does_not(self, tmp_path):
        ca, key = real_ca(), new_key()
        uris = [f"spiffe://example.org{SERVER}", "spiffe://example.org/other"]
        leaf = ca.sign_leaf("", Twist(key=key, uris=uris))
        async with tls_server(tmp_path, Shown((leaf,), key)) as (port, heard):
            refusal, _ = await refusal_of(dialer_to(f"127.0.0.1:{port}", None, ca.bundle(), run_dir=tmp_path))
            assert "2 URI SANs" in refusal
            assert heard == b""

    async def test_a_server_that_does_not_select_h2(self, tmp_path):
        ca = real_ca()
        svid = ca.issue(SERVER)
        async with tls_server(tmp_path, Shown(svid.chain, svid.private_key), alpn=("http/1.1",)) as (port, heard):
            refusal, _ = await refusal_of(dialer_to(f"127.0.0.1:{port}", None, ca.bundle(), run_dir=tmp_path))
            assert "HTTP/2" in refusal
            assert heard == b""


class TestBeingRefused:
    """The reason reaches the person who has to mend it."""

    async def test_by_the_alert_that_comes_after_our_side_of_the_handshake_has_finished(self, tmp_path):
        ca, other = real_ca(), real_ca()
        async with tls_door(tmp_path, ca) as room:
            refusal, error = await refusal_of(room.dialer(other.issue("/a"), ca.bundle()))
            assert refusal == "it refused our identity or our TLS: unknown ca"
            assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

    async def test_by_a_close_without_a_word(self, tmp_path):
        ca = real_ca()
        async with tls_door(tmp_path, ca, admits_id=lambda one: "nobody is") as room:
            refusal, _ = await refusal_of(room.dialer(ca.issue("/a"), ca.bundle()))
            assert "closed the connection without an answer" in refusal

    async def test_by_nobody_listening(self, tmp_path):
        ca = real_ca()
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            dialer = dialer_to(f"127.0.0.1:{nobody.getsockname()[1]}", None, ca.bundle(), run_dir=tmp_path)
            refusal, error = await refusal_of(dialer)
            assert "refused" in refusal.lower()
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert refusal in dialer.explain(error)

    async def test_by_silence(self, tmp_path):
        ca = real_ca()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            refusal, _ = await refusal_of(dialer_to(address, None, ca.bundle(), run_dir=tmp_path, timeout=0.2))
            assert refusal == "no connection in time"

    async def test_by_silence_after_the_handshake(self, tmp_path):
        """It did not turn us away: to say so would make whoever reads it look for a fault of our certificate."""
        ca = real_ca()
        svid = ca.issue(SERVER)
        may_end = asyncio.Event()
        async with tls_server(tmp_path, Shown(svid.chain, svid.private_key), may_end=may_end) as (port, _):
            patience = [("grpc.min_reconnect_backoff_ms", 300)]  # grpc's, for HTTP/2's first frame
            dialer = dialer_to(f"127.0.0.1:{port}", None, ca.bundle(), run_dir=tmp_path, options=patience)
            refusal, _ = await refusal_of(dialer)
            may_end.set()
        assert "no answer in time" in refusal
        assert "our identity" not in refusal


@pytest.mark.parametrize(
    ("address", "options", "word"),
    [
        ("127.0.0.1:1", {"bundles": BundleMap.of}, "no authority of example.org"),
        ("nonsense", {}, "not host:port"),
        ("127.0.0.1:70000", {}, "not host:port"),
        (".example.org:1", {}, "not host:port"),
        ("a..b:1", {}, "label empty"),
        ("127.0.0.1:1", {"identity": lambda: 1 / 0}, "ZeroDivisionError"),
    ],
    ids=["no bundle", "no address", "no port", "no host", "no name", "a bug in the identity"],
)
async def test_what_keeps_us_from_dialling_is_said_too(tmp_path, address, options, word):
    ca = real_ca()
    refusal, _ = await refusal_of(dialer_to(address, None, ca.bundle(), run_dir=tmp_path, **options))
    assert word in refusal


_STRANGER = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
try:
    sock.sendall(b"x")
    sys.exit(len(sock.recv(10)))
except ConnectionError:
    pass
"""


async def test_another_process_cannot_call_through_our_dialer(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        await echo(channel)
        (private,) = {path for path in (tmp_path / "run").glob("lv*/1") if path.parent != room.door.private_directory}
        command = [sys.executable, "-c", _STRANGER, str(private)]
        ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False, timeout=20)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert room.door.connections == 1
