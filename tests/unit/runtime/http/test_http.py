"""The HTTP server: who is calling reaches the application, who may not come in does not, and every bound holds."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from livery.identity import BundleMap
from livery.runtime.audit import AuditUnavailable
from livery.runtime.http import (
    ApplicationFailed,
    HttpBounds,
    HttpOptions,
    HttpPeer,
    NoPeer,
    TcpListen,
    UnixListen,
    connection,
    peer_of,
)
from livery.runtime.http.gate import EXTENSION, Gate, GateSettings
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import CannotListen
from tests.fakes.tls import rogue_context
from tests.pki import TestCa, Twist, new_key
from tests.unit.runtime.http.http_world import World, connected, until

FAST = HttpBounds(head_timeout=0.15, body_timeout=0.15, write_timeout=0.3, keep_alive=0.15)


@pytest.fixture
async def world() -> World:
    return World()


# Who is calling.


async def test_the_application_learns_the_verified_id_of_an_mtls_caller(world: World) -> None:
    async with world.tcp() as server, connected(server, world.context(world.ca.issue("/orders"))) as client:
        answer = await client.get()
    assert (answer.status, answer.json()["caller"]) == (200, "spiffe://example.org/orders")


async def test_a_caller_without_a_certificate_is_anonymous_on_the_same_port(world: World) -> None:
    async with world.tcp() as server, connected(server, world.context(None)) as client:
        assert (await client.get()).json()["caller"] == "anonymous"
    assert peer_of(world.app.scopes[0]).identity is None


async def test_a_server_may_demand_a_client_certificate(world: World) -> None:
    options = HttpOptions(demand_client_certificate=True)
    async with world.tcp(options) as server, connected(server, world.context(None)) as client:
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)certificate required|alert|reset"):
            await client.get()
    assert world.app.scopes == []


async def test_the_standard_tls_extension_stands_beside_the_peer(world: World) -> None:
    svid = world.ca.issue("/orders")
    async with world.tcp() as server, connected(server, world.context(svid)) as client:
        await client.get()
    tls = world.app.scopes[0]["extensions"]["tls"]
    assert tls["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert tls["server_cert"].encode() == world.identity.current.chain_pem()[: len(tls["server_cert"])]
    assert (tls["tls_version"], tls["client_cert_error"]) == (0x0304, None)
    assert tls["cipher_suite"] in {0x1301, 0x1302, 0x1303}
    assert world.app.scopes[0]["scheme"] == "https"


async def test_a_process_on_a_unix_socket_is_known_by_uid_and_pid(world: World, tmp_path: Path) -> None:
    async with world.unix(tmp_path / "s") as server, connected(server) as client:
        answer = (await client.get()).json()["caller"]
        process = peer_of(world.app.scopes[0]).process
        assert process is not None
        os.fstat(process.pidfd)
    assert answer == f"uid:{os.geteuid()}/pid:{os.getpid()}"
    await until(lambda: not _is_open(process.pidfd))


def _is_open(fd: int) -> bool:
    try:
        return "pidfd" in str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return False


@pytest.mark.parametrize("mode", [0o600, 0o660])
async def test_a_unix_socket_has_the_mode_asked_for_and_is_removed_in_the_end(
    world: World, tmp_path: Path, mode: int
) -> None:
    async with world.unix(tmp_path / "s", mode=mode):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    assert not (tmp_path / "s").exists()


async def test_a_uid_that_is_not_admitted_is_refused_and_recorded(world: World, tmp_path: Path) -> None:
    async with world.unix(tmp_path / "s", admits=lambda uid: uid == 4242) as server:
        before = len(list(Path("/proc/self/fd").iterdir()))
        async with connected(server) as client:
            assert await client.ended() == b""
            await until(world.refusals)
        await until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
    assert world.refusals()[0]["reason"] == "not_admitted"
    assert world.app.scopes == []


def test_an_application_served_by_something_else_does_not_take_a_caller_for_anonymous() -> None:
    for scope in ({}, {"extensions": None}, {"extensions": {"livery.peer": {"identity": "spiffe://example.org/a"}}}):
        with pytest.raises(NoPeer):
            peer_of(scope)


# Who does not come in.


def _other_domain(world: World) -> tuple[Any, Any]:
    key = new_key()
    partner = TestCa("partner.test", now=world.ca.now)
    world.identity.trusted = BundleMap.of(world.ca.bundle(), partner.bundle())
    return partner.issue_chain("/a", Twist(key=key)), key


def _minted_by_a_partner(world: World) -> tuple[Any, Any]:
    """A federated authority, trusted for its own domain, signs an ID of ours."""
    key = new_key()
    partner = TestCa("partner.test", now=world.ca.now)
    world.identity.trusted = BundleMap.of(world.ca.bundle(), partner.bundle())
    return (partner.sign_leaf("spiffe://example.org/admin", Twist(key=key)), *partner.above()), key


def _twisted(world: World, **twist: Any) -> tuple[Any, Any]:
    key = new_key()
    return world.ca.issue_chain("/a", Twist(key=key, **twist)), key


def _expired(world: World) -> tuple[Any, Any]:
    return _twisted(world, not_before=world.ca.now - timedelta(hours=2), not_after=world.ca.now - timedelta(hours=1))


def _two_ids(world: World) -> tuple[Any, Any]:
    return _twisted(world, uris=("spiffe://example.org/a", "spiffe://example.org/b"))


def _authority_as_leaf(world: World) -> tuple[Any, Any]:
    return _twisted(world, ca=True)


def _stranger(world: World) -> tuple[Any, Any]:
    key = new_key()
    return TestCa("example.org", now=world.ca.now).issue_chain("/a", Twist(key=key)), key


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_expired, "expired"),
        (_stranger, "certificate"),
        (_two_ids, "URI"),
        (_authority_as_leaf, "CA"),
        (_minted_by_a_partner, "no authority of example.org vouches"),
        (_other_domain, "not of example.org"),
    ],
)
async def test_a_wrong_certificate_never_reaches_the_application_and_is_recorded(
    world: World, make: Any, why: str
) -> None:
    chain, key = make(world)
    async with world.tcp() as server:
        async with connected(server, rogue_context(chain, key)) as client:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await client.get()
        await until(world.refusals)
        async with connected(server, world.context(world.ca.issue("/good"))) as neighbour:
            assert (await neighbour.get()).status == 200
    assert [str(peer_of(scope).identity.id) for scope in world.app.scopes] == ["spiffe://example.org/good"]  # type: ignore[union-attr]
    (record,) = world.refusals()
    assert why.lower() in str(record["why"]).lower()
    assert str(record["address"]).startswith("127.0.0.1:")


async def test_a_refused_client_is_told_why_by_a_tls_alert(world: World) -> None:
    chain, key = _expired(world)
    async with world.tcp() as server, connected(server, rogue_context(chain, key)) as client:
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate expired"):
            await client.get()


async def test_a_door_can_admit_ids_of_a_federated_domain(world: World) -> None:
    chain, key = _other_domain(world)
    async with (
        world.tcp(admits_id=lambda _: None) as server,
        connected(server, rogue_context(chain, key)) as client,
    ):
        assert (await client.get()).json()["caller"] == "spiffe://partner.test/a"


async def test_a_refusal_that_cannot_be_recorded_is_still_a_refusal(world: World) -> None:
    world.audit.broken = True
    chain, key = _two_ids(world)
    async with world.tcp() as server:
        async with connected(server, rogue_context(chain, key)) as client:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await client.get()
        assert world.app.scopes == []
    with pytest.raises(AuditUnavailable):
        world.audit.record("x", "y")


# How long it holds.


async def test_from_a_quarter_of_the_certificates_life_before_its_end_replies_ask_to_dial_again(world: World) -> None:
    svid = world.ca.issue("/orders", timedelta(minutes=40))
    async with world.tcp() as server, connected(server, world.context(svid)) as client:
        assert "connection" not in (await client.get()).headers
        world.clock.advance(timedelta(minutes=31))
        assert (await client.get()).headers["connection"] == "close"
        assert await client.ended() == b""


async def test_a_request_on_a_connection_kept_alive_past_its_certificates_end_gets_401(world: World) -> None:
    svid = world.ca.issue("/orders", timedelta(minutes=40))
    async with world.tcp() as server, connected(server, world.context(svid)) as client:
        await client.get()
        world.clock.advance(timedelta(minutes=41))
        refused = await client.get()
        assert await client.ended() == b""
    assert (refused.status, refused.json()["code"]) == (401, "caller_expired")
    assert "www-authenticate" in refused.headers
    assert len(world.app.scopes) == 1


async def test_when_an_authority_is_withdrawn_the_next_request_on_an_open_connection_gets_401(world: World) -> None:
    async with world.tcp() as server, connected(server, world.context(world.ca.issue("/orders"))) as client:
        assert (await client.get()).status == 200
        world.identity.trusted = BundleMap.of(TestCa("example.org", now=world.ca.now).bundle())
        assert (await client.get()).status == 401
    assert len(world.app.scopes) == 1


async def test_when_an_id_is_no_longer_admitted_its_next_request_after_a_change_gets_403(world: World) -> None:
    banned: list[str] = []
    admits = {"admits_id": lambda spiffe_id: "banned" if str(spiffe_id) in banned else None}
    async with world.tcp(**admits) as server, connected(server, world.context(world.ca.issue("/orders"))) as client:
        assert (await client.get()).status == 200
        banned.append("spiffe://example.org/orders")
        world.identity.trusted = BundleMap.of(world.ca.bundle())
        assert (await client.get()).status == 403
    assert len(world.app.scopes) == 1


async def test_a_response_is_cut_a_while_after_its_callers_certificate_has_ended(world: World) -> None:
    svid = world.ca.issue("/orders")
    world.clock.set_wall(svid.not_after - timedelta(seconds=0.1))
    options = HttpOptions(HttpBounds(expired_grace=0.1))
    async with world.tcp(options) as server, connected(server, world.context(svid)) as client:
        pending = asyncio.create_task(client.get("/wait"))
        await world.app.entered.wait()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
            await asyncio.wait_for(pending, 5)
        world.app.go.set()


async def test_what_claims_to_be_a_peer_in_a_request_is_replaced_by_the_peer(world: World) -> None:
    """No server we know of lets a client write there; if one did, it would not be believed."""
    seen: list[HttpPeer] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(peer_of(scope))

    peer, forged = HttpPeer(None, None, "192.0.2.1:1"), HttpPeer(None, None, "unix")
    settings = GateSettings(world.clock, 1, False, bundles=lambda: None, recheck=lambda _peer: None)
    scope = {"type": "http", "headers": [], "extensions": {EXTENSION: forged}}

    async def unused(*_: Any) -> Any: ...

    await Gate(app, peer, settings, None)(scope, unused, unused)
    assert seen == [peer]


async def test_rechecking_closes_what_no_longer_verifies_even_in_the_middle_of_a_response(world: World) -> None:
    async with (
        world.tcp() as server,
        connected(server, world.context(world.ca.issue("/orders"))) as client,
        connected(server, world.context(None)) as anonymous,
    ):
        pending = asyncio.create_task(client.get("/wait"))
        await world.app.entered.wait()
        await server.recheck()
        assert not pending.done()
        world.identity.trusted = BundleMap.of(TestCa("example.org", now=world.ca.now).bundle())
        await server.recheck()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
            await pending
        world.app.go.set()
        assert (await anonymous.get()).status == 200


async def test_a_new_svid_is_shown_at_the_next_handshake_and_open_connections_live_on(world: World) -> None:
    async with world.tcp() as server, connected(server, world.context(None)) as old:
        await old.get()
        world.identity.current = renewed = world.ca.issue("/server")
        async with connected(server, world.context(None)) as new:
            shown = new.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert shown == renewed.chain_ders()[0]
        assert (await old.get()).status == 200


async def test_a_new_authority_admits_at_the_next_handshake_without_restart(world: World) -> None:
    second = TestCa("example.org", now=world.ca.now)
    chain_key = new_key()
    chain = second.issue_chain("/late", Twist(key=chain_key))
    async with world.tcp() as server:
        world.identity.trusted = BundleMap.of(second.bundle())
        async with connected(server, rogue_context(chain, chain_key)) as client:
            assert (await client.get()).json()["caller"] == "spiffe://example.org/late"


async def test_a_server_whose_identity_is_gone_takes_no_connection_and_recovers(world: World) -> None:
    async with world.tcp() as server:
        world.identity.broken = AuditUnavailable("any error of ours")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            async with connected(server, world.context(None)) as client:
                await client.get()
        world.identity.broken = None
        async with connected(server, world.context(None)) as client:
            assert (await client.get()).status == 200


async def test_a_bug_in_what_a_server_asks_for_costs_its_connection_and_holds_no_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with world.tcp() as server:
        with monkeypatch.context() as patched:
            patched.setattr(world.identity, "svid", lambda: {}["a bug"])
            async with connected(server) as mute:
                assert await mute.ended() == b""
        await until(lambda: not server._reception._admission._counts)
        assert [type(error) for error in told] == [KeyError]
        async with connected(server, world.context(None)) as client:
            assert (await client.get()).status == 200


def _resuming(first: socket.socket, later: socket.socket, context: ssl.SSLContext) -> list[bytes]:
    """Answers to a session, and to one that resumes it on a connection which was there before."""
    answers: list[bytes] = []
    session, first_peer = None, first.getpeername()
    for raw in (first, later):
        with context.wrap_socket(raw, session=session) as tls:
            assert bool(tls.session_reused) is (session is not None)
            tls.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            answers.append(tls.recv(65536))
            session = tls.session
            tls.unwrap()
    with socket.create_connection(first_peer, 10) as new, context.wrap_socket(new, session=session) as tls:
        assert not tls.session_reused  # a context in which there is a session is used for nobody else
    return answers


async def test_a_tls_1_2_client_that_resumes_its_session_is_still_identified(world: World) -> None:
    """OpenSSL resumes by session ID within one context; the chain is verified again all the same."""
    context = world.context(world.ca.issue("/orders"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with world.tcp() as server:
        address = "127.0.0.1", int(server.address.rpartition(":")[2])
        with socket.create_connection(address, 10) as first, socket.create_connection(address, 10) as later:
            await until(lambda: server._reception._admission.count("handshakes") == 2)
            answers = await asyncio.to_thread(_resuming, first, later, context)
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"spiffe://example.org/orders"' in answer


# What may be sent.


async def test_garbage_is_answered_or_cut_and_a_good_neighbour_is_served(world: World, tmp_path: Path) -> None:
    garbage = [
        b"\x00\xff" * 500,
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nx y: z\r\n\r\n",
    ]
    garbage += [b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"GET http://[::1 HTTP/1.1\r\n\r\n"]
    garbage += [b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"]
    garbage += [b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"]
    async with world.tcp() as tcp, world.unix(tmp_path / "s") as unix:
        for data in garbage:
            for server, context in ((unix, None), (tcp, world.context(None))):
                async with connected(server, context) as client:
                    await client.send(data)
                    assert (await client.ended()).startswith(b"HTTP/1.1 400 ")
        async with connected(tcp, world.context(None)) as neighbour:
            assert (await neighbour.get()).status == 200
    assert len(world.app.scopes) == 1


async def test_what_is_not_tls_is_refused_and_recorded(world: World) -> None:
    async with world.tcp() as server:
        for data in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", os.urandom(3000), b"\x16\x03\x01\x00\x05hello" * 20):
            async with connected(server) as client:
                await client.send(data)
                await client.ended()
        async with connected(server, world.context(None)) as neighbour:
            assert (await neighbour.get()).status == 200
    assert {record["reason"] for record in world.refusals()} == {"tls_failed"}


async def test_half_a_handshake_is_cut_in_time_and_does_not_keep_a_neighbour_out(world: World) -> None:
    options = HttpOptions(limits=DoorLimits(handshake_timeout=0.2))
    async with world.tcp(options) as server, connected(server) as half:
        await half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        async with connected(server, world.context(None)) as neighbour:
            assert (await neighbour.get()).status == 200
        await half.ended()
    assert {record["reason"] for record in world.refusals()} == {"handshake_timeout"}


async def test_the_time_for_a_handshake_ends_with_it(world: World) -> None:
    limits, loop = DoorLimits(connections=64, handshake_timeout=1.0), asyncio.get_running_loop()
    async with (
        world.tcp(HttpOptions(limits=limits)) as server,
        connected(server, world.context(world.ca.issue("/orders"))) as client,
    ):
        later = loop.time() + 1.2
        await until(lambda: loop.time() > later)
        assert (await client.get()).status == 200


async def test_a_client_that_connects_and_leaves_is_not_worth_a_record(world: World) -> None:
    async with world.tcp() as server:
        async with connected(server):
            pass
        await asyncio.sleep(0.05)
    assert world.audit.events == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_gets_413_though_the_client_is_still_sending(
    world: World, tmp_path: Path, chunked: bool
) -> None:
    """10 MB to a server that reads 1 MB: the answer arrives, the connection ends, the process lives."""
    size = 10_000_000
    body = (b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n") if chunked else b"x" * size
    length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % size
    async with world.tcp() as tcp, world.unix(tmp_path / "s") as unix:
        for server, context in ((tcp, world.context(None)), (unix, None)):
            async with connected(server, context) as client:
                client.writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n" + length + b"\r\n\r\n" + body)
                answer = await client.response()
                assert (answer.status, answer.json()["code"]) == (413, "body_too_long")
            async with connected(server, context) as neighbour:
                assert (await neighbour.get()).status == 200
    assert all(len(seen) <= 1 << 20 for seen in world.app.bodies)
    # What says itself that it is too long is not for the application to see.
    assert [scope["method"] for scope in world.app.scopes].count("POST") == (2 if chunked else 0)


async def test_a_client_that_sends_everything_before_it_reads_gets_its_413_too(world: World, tmp_path: Path) -> None:
    """Closed at once, with its bytes unread, it would get a reset in place of the answer."""

    def send_then_read(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 9_000_000)
            return client.recv(1000)

    async with world.unix(tmp_path / "s"):
        answer = await asyncio.to_thread(send_then_read, tmp_path / "s")
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_body_within_the_limit_arrives_whole_in_any_framing(world: World, tmp_path: Path) -> None:
    body = os.urandom(1 << 20)
    async with world.unix(tmp_path / "s") as server, connected(server) as client:
        assert (await client.post(body)).json()["length"] == 1 << 20
        framed = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 999]), body[i : i + 999]) for i in range(0, 50_000, 999))
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n")
        assert (await client.response()).json()["length"] == 50_949
    assert world.app.bodies[0] == body


async def test_a_head_without_end_or_with_too_many_headers_gets_431(world: World, tmp_path: Path) -> None:
    heads = [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 400_000,
        b"GET /" + b"a" * 400_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ]
    async with world.unix(tmp_path / "s") as server:
        for head in heads:
            async with connected(server) as client:
                client.writer.write(head)
                assert (await client.response()).status == 431
        async with connected(server) as client:
            assert (await client.get(headers=["x: " + "a" * 20_000])).status == 200


async def test_trailers_are_no_headers_and_without_end_are_refused(world: World, tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    async with world.unix(tmp_path / "s") as server:
        async with connected(server) as client:
            await client.send(head + b"x-admin: yes\r\n\r\n")
            assert (await client.response()).json()["length"] == 3
            assert not [name for name, _ in world.app.scopes[0]["headers"] if name == b"x-admin"]
        for endless in (b"x-admin: " + b"a" * 400_000, b"a: b\r\n" * 40_000):
            async with connected(server) as client:
                client.writer.write(head + endless)
                assert (await client.response()).status == 431


async def test_a_chunks_extension_without_end_is_refused(world: World, tmp_path: Path) -> None:
    async with world.unix(tmp_path / "s") as server, connected(server) as client:
        client.writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;a=" + b"a" * 400_000)
        assert (await client.response()).status == 431


async def test_what_is_no_request_keeps_no_connection_open(world: World, tmp_path: Path) -> None:
    """An empty line before a request is skipped (RFC 9112 2.2), and so is a body that nobody wanted."""
    async with (
        world.unix(tmp_path / "s", HttpOptions(HttpBounds(keep_alive=0.2))) as server,
        connected(server) as empty,
        connected(server) as late,
    ):
        assert (await empty.get()).status == 200
        await empty.send(b"\r\n")
        await late.send(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n12")
        assert (await late.response()).status == 200
        await late.send(b"34")
        assert await empty.ended() == b""
        assert await late.ended() == b""


async def test_a_slow_head_is_answered_408_and_a_silent_connection_is_closed(world: World, tmp_path: Path) -> None:
    async with (
        world.unix(tmp_path / "s", HttpOptions(FAST)) as server,
        connected(server) as slow,
        connected(server) as silent,
        connected(server) as idle,
    ):
        assert (await idle.get()).status == 200
        await slow.send(b"GET / HTTP/1.1\r\nho")
        assert (await slow.response()).status == 408
        assert await silent.ended() == b""
        assert await idle.ended() == b""


async def test_a_slow_body_ends_the_connection(world: World, tmp_path: Path) -> None:
    async with world.unix(tmp_path / "s", HttpOptions(FAST)) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1234")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.response()


async def test_each_part_of_each_request_has_its_own_time(world: World, tmp_path: Path) -> None:
    heads, bodies = HttpOptions(HttpBounds(head_timeout=0.5)), HttpOptions(HttpBounds(body_timeout=0.5))
    async with world.unix(tmp_path / "h", heads) as server, connected(server) as client:
        assert (await client.get()).status == 200
        await client.send(b"GET / HTTP/1.1\r\nho")
        async with asyncio.timeout(10):
            assert (await client.response()).status == 408
    async with world.unix(tmp_path / "b", bodies) as server, connected(server) as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1234")
        assert await client.ended() == b""


@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_a_client_that_never_reads_loses_its_connection_and_memory_stays_bounded(
    world: World, tmp_path: Path, over: str
) -> None:
    world.app.big = b"x" * 8_000_000
    options = HttpOptions(FAST)
    context = world.context(None) if over == "tcp" else None
    async with world.tcp(options) if over == "tcp" else world.unix(tmp_path / "s", options) as server:
        async with connected(server, context) as client:
            client.writer.transport.pause_reading()
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 8)
            await world.app.entered.wait()
            await until(lambda: not server._uvicorn.server_state.connections)
        assert len(world.app.scopes) <= 2


async def test_a_response_after_which_the_connection_ends_arrives_whole_though_its_reader_pauses(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.05)
    world.app.big = b"x" * 4_000_000
    async with world.unix(tmp_path / "s") as server, connected(server) as client:
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await until(lambda: world.app.bodies)
        pause = asyncio.get_running_loop().time() + 4 * connection.LINGER
        await until(lambda: asyncio.get_running_loop().time() > pause)
        client.writer.transport.resume_reading()
        assert (await client.response()).body == world.app.big


async def test_a_big_response_is_not_cut_while_it_is_being_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written at once, to a reader that needs longer for it than for any part."""
    bounds, loop = HttpBounds(write_timeout=1.5), asyncio.get_running_loop()
    monkeypatch.setattr(connection, "LINGER", 0.05)
    monkeypatch.setattr(connection, "PATIENCE", 1.5)
    world.app.big = b"x" * 4_000_000
    async with world.unix(tmp_path / "s", HttpOptions(bounds)) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        began, read = loop.time(), 0
        while part := await client.reader.read(65536):
            read += len(part)
            next_one = began + 2.5 * read / len(world.app.big)
            await until(lambda: loop.time() > next_one)  # noqa: B023 - before it changes
        assert read > len(world.app.big)


async def test_a_response_that_nobody_reads_does_not_keep_a_closed_connection(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.02)
    monkeypatch.setattr(connection, "PATIENCE", 0.1)
    world.app.big = b"x" * 4_000_000
    async with world.unix(tmp_path / "s") as server, connected(server) as client:
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await until(lambda: world.app.bodies)
        await until(lambda: not server._uvicorn.server_state.connections)


async def test_garbage_behind_a_request_gets_no_word_in_the_middle_of_its_response(
    world: World, tmp_path: Path
) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with world.serve(UnixListen(tmp_path / "s"), app=endless) as server, connected(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await client.reader.readuntil(b"half\r\n")
        await client.send(b"\0\0\0\0")
        assert await client.ended() == b""


async def test_pipelined_requests_are_answered_in_order_and_a_flood_of_them_is_cut(
    world: World, tmp_path: Path
) -> None:
    async with world.unix(tmp_path / "s") as server:
        async with connected(server) as client:
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 5)
            assert [(await client.response()).status for _ in range(5)] == [200] * 5
        async with connected(server) as flood:
            flood.writer.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n" * 5000)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await flood.response()
        world.app.go.set()


async def test_an_upgrade_is_not_followed(world: World, tmp_path: Path) -> None:
    async with world.unix(tmp_path / "s") as server, connected(server) as client:
        answer = await client.get(headers=["connection: upgrade", "upgrade: websocket"])
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert world.app.scopes[0]["type"] == "http"
        assert server._uvicorn.config.ws == "none"  # not even where a library for it is installed


async def test_a_forwarded_header_does_not_change_who_is_calling(world: World) -> None:
    """uvicorn would believe a local peer."""
    async with world.tcp() as server, connected(server, world.context(None)) as client:
        await client.get(headers=["x-forwarded-for: 6.6.6.6", "x-forwarded-proto: http"])
    assert world.app.scopes[0]["client"][0] == "127.0.0.1"
    assert peer_of(world.app.scopes[0]).address.startswith("127.0.0.1:")


# How many.


async def test_connections_beyond_the_bound_are_refused_and_places_come_back(world: World, tmp_path: Path) -> None:
    options = HttpOptions(limits=DoorLimits(per_uid=2))
    async with world.unix(tmp_path / "s", options) as server:
        async with connected(server) as one, connected(server) as two:
            assert (await one.get()).status == (await two.get()).status == 200
            async with connected(server) as three:
                assert await three.ended() == b""
        await until(lambda: not server._uvicorn.server_state.connections)
        async with connected(server) as again:
            assert (await again.get()).status == 200
    assert world.refusals()[0]["reason"] == "per_uid"


async def test_strangers_cannot_take_the_places_of_identities(world: World) -> None:
    options = HttpOptions(limits=DoorLimits(anonymous_per_address=2))
    async with world.tcp(options) as server, connected(server), connected(server):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            async with connected(server, world.context(None)) as late:
                await late.get()
    assert world.refusals()[0]["reason"] == "anonymous_per_address"


# The life of a server.


async def test_a_request_under_way_ends_well_when_the_server_stops(world: World, tmp_path: Path) -> None:
    server = world.unix(tmp_path / "s")
    await server.start()
    async with connected(server) as client:
        pending = asyncio.create_task(client.get("/wait"))
        await world.app.entered.wait()
        stopping = asyncio.create_task(server.stop(5))
        await asyncio.sleep(0.05)
        world.app.go.set()
        assert (await pending).status == 200
        client.close()
        await stopping


async def test_a_request_that_does_not_end_is_cut_after_the_grace(world: World, tmp_path: Path) -> None:
    server = world.unix(tmp_path / "s")
    await server.start()
    async with connected(server) as client:
        pending = asyncio.create_task(client.get("/wait"))
        await world.app.entered.wait()
        await server.stop(0)
        assert (await pending).json()["code"] == "server_stops"


async def test_a_stopped_server_answers_nobody_who_was_still_shaking_hands(world: World) -> None:
    server = world.tcp(HttpOptions(limits=DoorLimits(handshake_timeout=60.0)))
    await server.start()
    async with connected(server) as client:
        await until(lambda: server._reception._admission.count("handshakes"))
        await server.stop()
        assert await client.ended() == b""
    assert not world.app.scopes


async def test_stopping_twice_or_before_starting_is_fine(world: World, tmp_path: Path) -> None:
    server = world.unix(tmp_path / "s")
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()


async def test_a_port_in_use_is_a_clear_error(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = TcpListen("127.0.0.1", taken.getsockname()[1], world.identity)
        with pytest.raises(CannotListen, match="in use"):
            await world.serve(listen).start()


async def test_an_application_that_does_not_start_is_an_error_and_the_process_lives(
    world: World, tmp_path: Path
) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    server = world.serve(UnixListen(tmp_path / "s"), app=broken)
    with pytest.raises(ApplicationFailed):
        await server.start()
    assert not (tmp_path / "s").exists()


async def test_a_start_that_is_given_up_leaves_the_port_free(world: World) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    server = world.serve(TcpListen("127.0.0.1", 0, world.identity), app=never)
    starting = asyncio.create_task(server.start())
    await until(lambda: server.address)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with world.serve(TcpListen("127.0.0.1", int(server.address.rpartition(":")[2]), world.identity)):
        pass


async def test_a_bug_of_the_application_is_500_and_the_connection_survives_it_safely(
    world: World, tmp_path: Path
) -> None:
    async with world.unix(tmp_path / "s") as server:
        async with connected(server) as client:
            assert (await client.get("/fail")).status == 500
        async with connected(server) as client:
            assert (await client.get()).status == 200


async def test_a_request_id_is_given_kept_and_returned(world: World, tmp_path: Path) -> None:
    async with world.unix(tmp_path / "s") as server, connected(server) as client:
        assert (await client.get(headers=["x-request-id: abc-1"])).headers["x-request-id"] == "abc-1"
        made = (await client.get(headers=["x-request-id: a b\tc"])).headers["x-request-id"]
        assert len(made) == 16
        assert (await client.get()).headers["x-request-id"] != made


async def test_each_request_has_one_log_line_without_its_query(world: World, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logged:
        async with world.unix(tmp_path / "s") as server, connected(server) as client:
            await client.get("/stock?password=hunter2", ["x-request-id: r1"])
        quiet = HttpOptions(log_requests=False)
        async with world.unix(tmp_path / "s", quiet) as server, connected(server) as client:
            await client.get()
    (line,) = [line for line in logged if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/stock", 200)
    assert line["caller"].startswith("uid:")
    assert "hunter2" not in str(logged)


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_it_serves_on_uvloop_too(tmp_path: Path, over: str) -> None:
    async def main() -> None:
        world = World()
        chain, key = _expired(world)
        async with world.tcp() if over == "tcp" else world.unix(tmp_path / "s") as server:
            context = world.context(world.ca.issue("/orders")) if over == "tcp" else None
            async with connected(server, context) as client:
                assert (await client.get()).status == (await client.post(b"x" * 200_000)).status == 200
            if over == "tcp":
                with pytest.raises(ssl.SSLError, match=r"(?i)certificate expired"):
                    async with connected(server, rogue_context(chain, key)) as client:
                        await client.get()

    uvloop.run(main())
