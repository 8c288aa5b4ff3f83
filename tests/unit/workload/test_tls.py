"""TLS contexts made once and current for ever: the peer's SPIFFE ID is checked inside the handshake."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvloop

from livery.identity import BundleMap, SpiffeId, TrustDomain
from livery.runtime.transport.tls_engine import TlsEngine
from livery.workload import NoIdentity, PeerRefused, client_context, server_context
from livery.workload.tls import BlockingSocketsUnsupported, RefusedInHandshake, refusal_behind
from tests.fakes.clock import FakeClock
from tests.fakes.door_identity import ChangingIdentity
from tests.fakes.tls import rogue_context
from tests.pki import TestCa, Twist, new_key

SERVER = SpiffeId.parse("spiffe://example.org/server")


@pytest.fixture
def ca() -> TestCa:
    return TestCa("example.org", now=datetime.now(UTC))


class Bytes:
    """A server that counts the bytes it was sent in clear, and answers each read."""

    def __init__(self) -> None:
        self.received = b""
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(1000):
                self.received += data
                writer.write(b"pong")
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[tuple[Bytes, int]]:
    handler = Bytes()
    server = await asyncio.start_server(handler.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield handler, server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ping(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="any")
    try:
        writer.write(b"ping")
        return await reader.read(100)
    finally:
        writer.transport.abort()


async def is_refused(port: int, context: ssl.SSLContext) -> bool:
    """Whether the server cuts us off; asyncio does so without an alert, and in TLS 1.3 after our side has finished."""
    try:
        return await ping(port, context) == b""
    except (ssl.SSLError, ConnectionError):
        return True


async def exchange(ca: TestCa) -> None:
    client, server = ChangingIdentity.of(ca, "/client"), ChangingIdentity.of(ca)
    async with listening(server_context(server)) as (handler, port):
        context = client_context(client, SERVER)
        assert await ping(port, context) == b"pong"
        server.current = ca.issue("/server")
        client.current = ca.issue("/client")
        assert await ping(port, context) == b"pong"
        assert handler.received == b"pingping"


async def test_two_programs_that_expect_each_other_talk_and_go_on_talking_after_a_rotation(ca: TestCa) -> None:
    await exchange(ca)


def test_it_works_on_uvloop_too(ca: TestCa) -> None:
    uvloop.run(exchange(ca))


async def test_after_the_authorities_were_replaced_the_same_contexts_still_serve(ca: TestCa) -> None:
    client, server = ChangingIdentity.of(ca, "/client"), ChangingIdentity.of(ca)
    new = TestCa("example.org", now=ca.now)
    async with listening(server_context(server)) as (_, port):
        context = client_context(client, SERVER)
        assert await ping(port, context) == b"pong"
        for identity, path in ((client, "/client"), (server, "/server")):
            identity.current, identity.trusted = new.issue(path), BundleMap.of(new.bundle())
        assert await ping(port, context) == b"pong"


def _other_id(ca: TestCa, key: Any) -> Any:
    return ca.issue_chain("/somebody-else", Twist(key=key))


def _stranger(ca: TestCa, key: Any) -> Any:
    return TestCa("example.org", now=ca.now).issue_chain("/server", Twist(key=key))


def _expired(ca: TestCa, key: Any) -> Any:
    hour = timedelta(hours=1)
    return ca.issue_chain("/server", Twist(key=key, not_before=ca.now - 2 * hour, not_after=ca.now - hour))


def _two_ids(ca: TestCa, key: Any) -> Any:
    return ca.issue_chain("/server", Twist(key=key, uris=(str(SERVER), "spiffe://example.org/b")))


def _by_a_partner(ca: TestCa, key: Any) -> Any:
    partner = TestCa("partner.test", now=ca.now)
    return (partner.sign_leaf(str(SERVER), Twist(key=key)), *partner.above())


WRONG = [_other_id, _stranger, _expired, _two_ids, _by_a_partner]


@pytest.mark.parametrize("make", WRONG)
async def test_a_wrong_server_is_refused_before_the_first_byte(ca: TestCa, make: Callable[..., Any]) -> None:
    key = new_key()
    async with listening(rogue_context(make(ca, key), key, server=True)) as (handler, port):
        with pytest.raises(ssl.SSLError):
            await ping(port, client_context(ChangingIdentity.of(ca, "/client"), SERVER))
        await asyncio.sleep(0.02)
        assert handler.received == b""


@pytest.mark.parametrize("make", WRONG[1:])
async def test_a_wrong_client_is_refused_before_the_server_reads_a_byte(ca: TestCa, make: Callable[..., Any]) -> None:
    key = new_key()
    async with listening(server_context(ChangingIdentity.of(ca))) as (handler, port):
        assert await is_refused(port, rogue_context(make(ca, key), key))
        assert handler.received == b""


async def test_a_client_without_a_certificate_is_refused_before_the_server_reads_a_byte(ca: TestCa) -> None:
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    async with listening(server_context(ChangingIdentity.of(ca))) as (handler, port):
        assert await is_refused(port, anonymous)
        assert handler.received == b""


async def test_a_refusal_can_be_found_behind_the_error_of_a_library(ca: TestCa) -> None:
    key = new_key()
    async with listening(rogue_context(_other_id(ca, key), key, server=True)) as (_, port):
        try:
            await ping(port, client_context(ChangingIdentity.of(ca, "/client"), SERVER))
        except ssl.SSLError as error:
            wrapped = RuntimeError("a library's own")
            wrapped.__cause__ = error
            refusal = refusal_behind(wrapped)
    assert isinstance(refusal, PeerRefused)
    assert "the peer is spiffe://example.org/somebody-else" in str(refusal)
    assert refusal_behind(RuntimeError()) is None


async def test_a_server_admits_whom_it_was_told_to(ca: TestCa) -> None:
    partner = TestCa("partner.test", now=ca.now)
    both = BundleMap.of(ca.bundle(), partner.bundle())
    client = ChangingIdentity(partner.issue("/client"), both)
    server = ChangingIdentity(ca.issue("/server"), both)
    own_only = server_context(server)
    partners = server_context(server, lambda found: None if found.member_of(TrustDomain("partner.test")) else "no")
    async with listening(own_only) as (handler, port):
        assert await is_refused(port, client_context(client, SERVER))
        assert handler.received == b""
    async with listening(partners) as (_, port):
        assert await ping(port, client_context(client, SERVER)) == b"pong"


async def test_the_clock_decides_not_the_handshake_alone(ca: TestCa) -> None:
    """Our clock is an hour past the certificate's end; the machine's is not."""
    clock = FakeClock(ca.now + timedelta(hours=3))
    async with listening(server_context(ChangingIdentity.of(ca))) as (handler, port):
        with pytest.raises(ssl.SSLError, match="was valid until"):
            await ping(port, client_context(ChangingIdentity.of(ca, "/c"), SERVER, clock=clock))
        assert handler.received == b""


async def test_a_domain_without_bundle_is_never_trusted(ca: TestCa) -> None:
    elsewhere = SpiffeId.parse("spiffe://partner.test/server")
    async with listening(server_context(ChangingIdentity.of(ca))) as (_, port):
        with pytest.raises(ssl.SSLError, match=r"no bundle of partner.test"):
            await ping(port, client_context(ChangingIdentity.of(ca, "/c"), elsewhere))


async def test_without_an_identity_there_is_no_connection(ca: TestCa) -> None:
    client = ChangingIdentity.of(ca, "/c")
    client.broken = NoIdentity("no identity yet")
    async with listening(server_context(ChangingIdentity.of(ca))) as (handler, port):
        with pytest.raises(RefusedInHandshake, match="no identity yet"):
            await ping(port, client_context(client, SERVER))
        assert handler.received == b""


def test_a_blocking_socket_is_refused_rather_than_left_unchecked(ca: TestCa) -> None:
    with socket.socket() as plain, pytest.raises(BlockingSocketsUnsupported):
        client_context(ChangingIdentity.of(ca, "/c"), SERVER).wrap_socket(plain)


async def test_a_context_is_made_anew_only_after_a_change(ca: TestCa) -> None:
    identity = ChangingIdentity.of(ca)
    context: Any = server_context(identity)
    first = context.current()
    assert context.current() is first
    identity.current = ca.issue("/server")
    assert context.current() is not first


@pytest.mark.parametrize("first", ["read", "write"])
def test_whoever_reads_or_writes_before_the_handshake_is_done_gets_nowhere(ca: TestCa, first: str) -> None:
    """OpenSSL would shake hands by itself, and nobody ask who the peer is."""
    key = new_key()
    wrong = TlsEngine(rogue_context(_other_id(ca, key), key, server=True), server_side=True)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(ChangingIdentity.of(ca, "/c"), SERVER).wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLError, match="do_handshake"):
        for _ in range(5):
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.read(100) if first == "read" else tls.write(b"secret")
            wrong.receive(outgoing.read())
            wrong.handshake()
            incoming.write(wrong.outgoing())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def test_a_server_resumes_no_session(ca: TestCa, version: ssl.TLSVersion) -> None:
    server, key = server_context(ChangingIdentity.of(ca)), new_key()
    client = rogue_context(ca.issue_chain("/client", Twist(key=key)), key)
    client.maximum_version = version
    session: Any = None
    for _ in range(2):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, session=session)
        engine = TlsEngine(server, server_side=True)
        is_done = False
        while not is_done:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            engine.receive(outgoing.read())
            is_done = engine.handshake()
            incoming.write(engine.outgoing())
        tls.do_handshake()
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()  # a session that ended otherwise is none to resume, to OpenSSL
        engine.receive(outgoing.read())
        assert not list(engine.plaintext())
        engine.say_goodbye()
        session = tls.session
        assert not tls.session_reused
