"""HTTP to one server identity: verified before the first byte, never on a connection whose certificate has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import uvloop

from livery.errors import LiveryError
from livery.identity import BundleMap, IdentityError, SpiffeId, TrustBundle
from livery.runtime.http import HttpServer, TcpListen, peer_of
from livery.workload import IdentityEnded, NoIdentity, NotEntitled, PeerRefused, WorkloadSource
from livery.workload.http_client import client
from tests.fakes.door_identity import ChangingIdentity
from tests.fakes.tls import rogue_context
from tests.fakes.workload_api import FakeWorkloadApi, x509_message
from tests.pki import TestCa, Twist, new_key
from tests.unit.runtime.http.http_world import World, until
from tests.unit.workload.test_tls import WRONG, listening

SERVER = SpiffeId.parse("spiffe://example.org/server")


@pytest.fixture
async def world() -> World:
    return World()


def url(server: HttpServer, path: str = "/") -> str:
    return f"https://{server.address}{path}"


def addresses(world: World) -> list[str]:
    return [peer_of(scope).address for scope in world.app.scopes]


async def test_the_server_sees_our_identity_and_we_reuse_the_connection(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server, client(caller, SERVER) as http:
        for _ in range(3):
            answer = await http.post(url(server), content=b"abc")
            assert answer.json() == {"caller": "spiffe://example.org/orders", "length": 3}
    assert len(set(addresses(world))) == 1


@pytest.mark.parametrize("make", WRONG)
async def test_a_wrong_server_gets_not_one_byte_of_the_request(world: World, make: Callable[..., Any]) -> None:
    key = new_key()
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with (
        listening(rogue_context(make(world.ca, key), key, server=True)) as (handler, port),
        client(caller, SERVER) as http,
    ):
        with pytest.raises((PeerRefused, IdentityError, httpx2.ConnectError)) as raised:
            await http.post(f"https://127.0.0.1:{port}/", content=b"secret")
        await asyncio.sleep(0.02)
        assert handler.received == b""
    assert "secret" not in repr(raised.value)


async def test_the_error_names_who_answered_and_whom_we_expected(world: World) -> None:
    other = SpiffeId.parse("spiffe://example.org/inventory")
    async with world.tcp() as server, client(ChangingIdentity.of(world.ca, "/orders"), other) as http:
        with pytest.raises(PeerRefused) as raised:
            await http.get(url(server))
    assert "the peer is spiffe://example.org/server" in str(raised.value)
    assert str(other) in str(raised.value)
    assert world.app.scopes == []


async def test_a_server_that_speaks_no_tls_gets_no_request(world: World) -> None:
    received = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received = await reader.read(1000)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, client(ChangingIdentity.of(world.ca, "/orders"), SERVER) as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret")
    assert b"secret" not in received


async def test_an_url_in_clear_is_refused(world: World) -> None:
    async with client(ChangingIdentity.of(world.ca, "/orders"), SERVER) as http:
        with pytest.raises(httpx2.UnsupportedProtocol, match="https"):
            await http.get("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    "option",
    [{"proxy": "http://127.0.0.1:1"}, {"mounts": {"all://": httpx2.AsyncHTTPTransport()}}, {"verify": False}],
    ids=["proxy", "mounts", "verify"],
)
async def test_no_option_leads_past_the_check_of_the_server(world: World, option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(option))}"):
        client(ChangingIdentity.of(world.ca, "/orders"), SERVER, **option)


async def test_after_a_rotation_idle_connections_are_closed_at_once_and_the_new_svid_is_shown(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server, client(caller, SERVER) as http:
        await http.get(url(server))
        caller.rotate(world.ca.issue("/orders"))
        await until(lambda: not server._uvicorn.server_state.connections)
        await http.get(url(server))
    shown = [peer_of(scope).identity for scope in world.app.scopes]
    assert shown[0] is not None
    assert shown[1] is not None
    assert shown[1].serial == caller.current.serial != shown[0].serial


async def test_a_request_under_way_during_a_rotation_finishes_on_its_connection(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server, client(caller, SERVER) as http:
        under_way = asyncio.create_task(http.get(url(server, "/wait")))
        await world.app.entered.wait()
        caller.rotate(world.ca.issue("/orders"))
        assert (await http.get(url(server))).status_code == 200
        world.app.go.set()
        assert (await under_way).status_code == 200
        await until(lambda: len(server._uvicorn.server_state.connections) == 1)
    assert len(set(addresses(world))) == 2


async def test_a_response_that_is_read_slowly_outlives_a_rotation(world: World) -> None:
    world.app.big = b"x" * 1_000_000
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server, client(caller, SERVER) as http:
        async with http.stream("GET", url(server)) as response:
            caller.rotate(world.ca.issue("/orders"))
            assert len(await response.aread()) == 1_000_000
        await until(lambda: not server._uvicorn.server_state.connections)


async def test_a_rotation_of_somebody_elses_changes_nothing(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server, client(caller, SERVER) as http:
        await http.get(url(server))
        caller.rotate()
        await http.get(url(server))
    assert len(set(addresses(world))) == 1


async def test_a_connection_is_not_used_until_the_end_of_the_servers_certificate(world: World) -> None:
    """Three quarters into what was left of it, the next request dials again."""
    world.identity.current = world.ca.issue("/server", timedelta(minutes=20))
    async with (
        world.tcp() as server,
        client(ChangingIdentity.of(world.ca, "/orders"), SERVER, clock=world.clock) as http,
    ):
        await http.get(url(server))
        world.clock.advance(timedelta(minutes=14))
        await http.get(url(server))
        assert len(set(addresses(world))) == 1
        world.clock.advance(timedelta(minutes=2))
        await http.get(url(server))
        assert len(set(addresses(world))) == 2


async def test_with_our_own_certificate_ended_nothing_is_sent(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server, client(caller, SERVER, clock=world.clock) as http:
        await http.get(url(server))
        world.clock.advance(timedelta(hours=2))
        with pytest.raises(IdentityEnded) as raised:
            await http.get(url(server))
    assert "agent" in raised.value.fix
    assert len(world.app.scopes) == 1


async def test_when_our_identity_is_taken_away_connections_end_and_requests_say_why(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server, client(caller, SERVER) as http:
        await http.get(url(server))
        caller.broken = NotEntitled("this process has no identity")
        caller.rotate()
        await until(lambda: not server._uvicorn.server_state.connections)
        with pytest.raises(NotEntitled):
            await http.get(url(server))
        caller.broken = None
        assert (await http.get(url(server))).status_code == 200


async def test_a_domain_without_a_bundle_is_a_clear_error(world: World) -> None:
    elsewhere = SpiffeId.parse("spiffe://partner.test/server")
    async with world.tcp() as server, client(ChangingIdentity.of(world.ca, "/orders"), elsewhere) as http:
        with pytest.raises(PeerRefused, match=r"no bundle of partner\.test"):
            await http.get(url(server))


async def test_a_server_of_a_federated_domain_is_known_by_its_own_bundle(world: World) -> None:
    partner = TestCa("partner.test", now=world.ca.now)
    both = BundleMap.of(world.ca.bundle(), partner.bundle())
    world.identity.current, world.identity.trusted = partner.issue("/server"), both
    caller = ChangingIdentity(world.ca.issue("/orders"), both)
    expected = SpiffeId.parse("spiffe://partner.test/server")
    async with world.tcp(admits_id=lambda _: None) as server, client(caller, expected) as http:
        assert (await http.get(url(server))).json()["caller"] == "spiffe://example.org/orders"
        key = new_key()
        forged = (partner.sign_leaf(str(SERVER), Twist(key=key)), *partner.above())
        async with (
            listening(rogue_context(forged, key, server=True)) as (handler, port),
            client(caller, SERVER) as ours,
        ):
            with pytest.raises((LiveryError, httpx2.ConnectError)):
                await ours.get(f"https://127.0.0.1:{port}/")
            assert handler.received == b""


async def test_a_closed_client_leaves_no_connection_behind(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    async with world.tcp() as server:
        async with client(caller, SERVER) as http:
            await http.get(url(server))
        await until(lambda: not server._uvicorn.server_state.connections)
    assert caller.subscribers == []


async def test_a_connection_that_cannot_be_made_is_httpx2s_own_error(world: World) -> None:
    async with world.tcp() as server:
        address = url(server)
    async with client(ChangingIdentity.of(world.ca, "/orders"), SERVER) as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get(address)


class Pair(NamedTuple):
    """Two programs, each with an agent of its own."""

    inventory: FakeWorkloadApi
    orders: FakeWorkloadApi
    server: HttpServer
    http: httpx2.AsyncClient


@asynccontextmanager
async def pair(world: World, folder: Path) -> AsyncIterator[Pair]:
    """A server and a client, each with its own Workload API source."""
    inventory, orders = FakeWorkloadApi(folder / "i"), FakeWorkloadApi(folder / "o")
    async with inventory, orders:
        await inventory.say(x509_message([world.ca.issue("/server")], world.ca.bundle()))
        await orders.say(x509_message([world.ca.issue("/orders")], world.ca.bundle()))
        async with WorkloadSource(inventory.endpoint) as ours, WorkloadSource(orders.endpoint) as theirs:
            server = world.serve(TcpListen("127.0.0.1", 0, ours))
            async with server, client(theirs, SERVER) as http:
                yield Pair(inventory, orders, server, http)


def _bundle_of(*authorities: TestCa) -> TrustBundle:
    x509 = [each for ca in authorities for each in ca.bundle().x509_authorities]
    return TrustBundle(authorities[0].trust_domain, tuple(x509))


def _serials(world: World, last: int = 0) -> list[int]:
    identities = [peer_of(scope).identity for scope in world.app.scopes[-last:]]
    return [identity.serial for identity in identities if identity is not None]


async def _rotate_under_load(world: World, folder: Path, rotations: int) -> None:
    """Eight callers at once while both sides rotate so often. A third in, a second authority is published; another
    third later it signs. Each rotation is seen at the server before the next; a request that fails fails the test.
    """
    old, new = world.ca, TestCa("example.org", now=world.ca.now)
    async with pair(world, folder) as (inventory, orders, server, http):
        stop = asyncio.Event()

        async def keep_asking() -> None:
            while not stop.is_set():
                assert (await http.get(url(server))).status_code == 200

        async with asyncio.TaskGroup() as asking:
            for _ in range(8):
                asking.create_task(keep_asking())
            for number in range(rotations):
                bundle = _bundle_of(old) if number < rotations // 3 else _bundle_of(old, new)
                signer = old if number < 2 * rotations // 3 else new
                svid = signer.issue("/orders")
                await inventory.say(x509_message([signer.issue("/server")], bundle))
                await orders.say(x509_message([svid], bundle))
                await until(lambda: svid.serial in _serials(world, 8))  # noqa: B023 - the value of this round
            stop.set()
    assert len(set(_serials(world))) >= rotations
    assert world.refusals() == []


async def test_rotation_under_load_fails_no_request(world: World, tmp_path: Path) -> None:
    await _rotate_under_load(world, tmp_path, 15)


def test_rotation_under_load_fails_no_request_on_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        await _rotate_under_load(World(), tmp_path, 9)

    uvloop.run(main())


async def test_no_key_is_in_the_clients_repr_or_errors(world: World) -> None:
    caller = ChangingIdentity.of(world.ca, "/orders")
    caller.broken = NoIdentity("no identity yet")
    async with client(caller, SERVER) as http:
        with pytest.raises(NoIdentity) as raised:
            await http.get("https://127.0.0.1:1/")
    number = caller.current.private_key.private_numbers().private_value
    seen = repr(http) + repr(raised.value) + repr(http._transport) + repr(vars(http._transport))
    assert str(number) not in seen
    assert "PRIVATE" not in seen
