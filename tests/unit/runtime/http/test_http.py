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
    peer_of,
)
from livery.runtime.http.gate import EXTENSION, Gate, GateSettings
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import CannotListen
from tests.fakes.tls import rogue_context
from tests.pki import TestCa, Twist, new_key
from tests.unit.runtime.http.http_world import World, connected, until

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
