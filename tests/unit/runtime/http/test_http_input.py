"""What may be sent to a server of ours over HTTP, how much of it, and how slowly."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from livery.runtime.http import (
    HttpBounds,
    HttpOptions,
    UnixListen,
    connection,
    peer_of,
)
from livery.runtime.transport.limits import DoorLimits
from tests.unit.runtime.http.http_world import World, connected, until

FAST = HttpBounds(head_timeout=0.15, body_timeout=0.15, write_timeout=0.3, keep_alive=0.15)


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


async def test_a_request_names_exactly_one_host_unless_it_is_of_http_1_0(world: World, tmp_path: Path) -> None:
    """RFC 9112 3.2. What a policy says of hosts must not depend on which of two an application looks at."""
    heads = {
        b"GET / HTTP/1.1\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n": 400,
        b"GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n": 400,
        b"GET / HTTP/1.0\r\n\r\n": 200,
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n": 200,
    }
    async with world.unix(tmp_path / "s") as server:
        for head, status in heads.items():
            async with connected(server) as client:
                client.writer.write(head)
                response = await client.response()
                assert response.status == status, head
                if status == 400:
                    assert b"exactly one host" in response.body
        assert len(world.app.scopes) == 2, "what is refused does not reach the application"


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
