"""What one peer, or all together, can hold of the door: bounded, and given back when they go."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from livery.runtime.descriptors import raise_file_limit
from livery.runtime.transport.limits import DoorLimits
from tests.fakes.clock import FakeClock
from tests.integration.doors import (
    FLOODED,
    PATIENCE,
    PREFACE,
    SETTINGS,
    Shown,
    echo,
    eventually,
    hostile_context,
    http2_call,
    now,
    real_ca,
    tls_door,
    unix_door,
)

MIB = 1024 * 1024


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def connected(stack: ExitStack, address: str) -> socket.socket:
    """A raw connection to a door."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        sock = socket.create_connection((host, int(port)), PATIENCE)
    return stack.enter_context(sock)


async def settled(number) -> int:
    """Wait until a number stays the same for a while, and return it."""
    seen, still = number(), 0
    async with asyncio.timeout(PATIENCE):
        while still < 20:
            await asyncio.sleep(0.01)
            still = still + 1 if number() == seen else 0
            seen = number()
    return seen


async def test_half_open_handshakes_end_by_themselves_and_leave_nothing(tmp_path):
    ca = real_ca()
    limits = DoorLimits(connections=128, handshake_timeout=0.3)
    still = FakeClock(now())  # so that all of it happens within one second of the records' rate
    async with tls_door(tmp_path, ca, limits=limits, clock=still) as room:
        before = descriptors()
        with ExitStack() as stack:
            for _ in range(20):
                half = connected(stack, room.door.address)
                half.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
            counted = 'door_refusals_total{door="tcp",reason="handshake_timeout"} 20.0'
            await eventually(lambda: counted in room.metrics.render().decode())
            assert room.reasons == ["handshake_timeout"] * 10
        await eventually(lambda: descriptors() <= before)


async def test_strangers_of_one_address_crowd_out_neither_each_other_for_ever_nor_us(tmp_path):
    """2,000 connections that never say a word: a few wait, the others are refused, and an agent comes in as ever."""
    ca = real_ca()
    raise_file_limit()
    limits = DoorLimits(connections=512, anonymous_per_address=50, handshake_timeout=30)
    async with tls_door(tmp_path, ca, limits=limits) as room, room.dial(ca.issue("/a"), ca.bundle()) as agent:
        await echo(agent)
        before = resident()
        with ExitStack() as stack:
            for number in range(2000):
                connected(stack, room.door.address)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await eventually(lambda: "anonymous_per_address" in room.reasons)
            await settled(descriptors)
            assert resident() - before < 40 * MIB
            refused = 'door_refusals_total{door="tcp",reason="anonymous_per_address"} 1950.0'
            assert refused in room.metrics.render().decode()
            assert len(room.audit.events) < 2000  # a flood does not fill the disk
            assert await echo(agent) == b"hello"
        async with room.dial(None, ca.bundle()) as stranger:
            reply = stranger.unary_unary("/test.Echo/Echo")(b"at last", wait_for_ready=True, timeout=PATIENCE)
            assert await reply == b"at last"


async def test_2000_idle_local_connections_hold_a_bounded_share_of_memory_and_give_it_back(tmp_path):
    raise_file_limit()
    limits = DoorLimits(connections=600, per_uid=500)
    async with unix_door(tmp_path, limits=limits) as room, room.local() as neighbour:
        await echo(neighbour)
        files, before = descriptors(), resident()
        with ExitStack() as stack:
            for number in range(2000):
                with suppress(OSError):  # most are refused
                    # Who does not greet in HTTP/2 is gone after five seconds, which a busy machine may need for all.
                    connected(stack, room.door.address).send(PREFACE + SETTINGS)
                if number % 50 == 0:
                    await asyncio.sleep(0.01)  # the backlog is a bound too
            await eventually(lambda: room.door.connections == 500)
            await settled(descriptors)
            assert room.door.connections == 500
            assert resident() - before < 500 * 100 * 1024
            assert await echo(neighbour) == b"hello"
        await eventually(lambda: room.door.connections == 1)
        await eventually(lambda: descriptors() <= files)
        assert len(list(room.door.private_directory.iterdir())) == 2  # grpc's socket and the neighbour's


async def test_peers_that_hang_up_at_once_leave_nothing(tmp_path):
    async with unix_door(tmp_path) as room, room.local() as neighbour:
        await echo(neighbour)
        before = descriptors()
        for number in range(300):
            with ExitStack() as stack:
                connected(stack, room.door.address)
                for _ in range(number % 8):  # at another step of being let in each time
                    await asyncio.sleep(0)
        await eventually(lambda: room.door.connections == 1)
        await eventually(lambda: descriptors() <= before)


async def test_one_identity_may_hold_so_many_connections_and_another_still_comes_in(tmp_path):
    ca = real_ca()
    limits = DoorLimits(connections=64, per_identity=2)
    async with tls_door(tmp_path, ca, limits=limits) as room:
        greedy = ca.issue("/greedy")
        async with (
            room.dial(greedy, ca.bundle()) as one,
            room.dial(greedy, ca.bundle()) as two,
            room.dial(greedy, ca.bundle()) as three,
            room.dial(ca.issue("/modest"), ca.bundle()) as other,
        ):
            await echo(one)
            await echo(two)
            with pytest.raises(grpc.aio.AioRpcError):
                await echo(three, timeout=2.0)
            assert "per_identity" in room.reasons
            assert await echo(other) == b"hello"


async def test_anonymous_connections_are_bounded_in_total_apart_from_authenticated_ones(tmp_path):
    ca = real_ca()
    limits = DoorLimits(connections=64, anonymous=1)
    async with (
        tls_door(tmp_path, ca, limits=limits) as room,
        room.dial(None, ca.bundle()) as one,
        room.dial(None, ca.bundle()) as two,
        room.dial(ca.issue("/a"), ca.bundle()) as known,
    ):
        await echo(one)
        with pytest.raises(grpc.aio.AioRpcError):
            await echo(two, timeout=2.0)
        assert "anonymous" in room.reasons
        assert await echo(known) == b"hello"


async def test_an_idle_anonymous_connection_ends_and_a_busy_or_known_one_stays(tmp_path):
    ca = real_ca()
    clock = FakeClock(now())
    limits = DoorLimits(connections=64, anonymous_idle=30, anonymous_age=300)
    async with (
        tls_door(tmp_path, ca, limits=limits, clock=clock) as room,
        room.dial(None, ca.bundle()) as idle,
        room.dial(None, ca.bundle()) as busy,
        room.dial(ca.issue("/a"), ca.bundle()) as known,
    ):
        await echo(idle)
        await echo(known)
        stream = busy.unary_stream("/test.Echo/Wait")(b"")
        await stream.read()
        assert room.door.connections == 3
        await clock.run_for(timedelta(seconds=40))
        await eventually(lambda: room.door.connections == 2)
        await clock.run_for(timedelta(seconds=270))
        await eventually(lambda: room.door.connections == 1)  # a call that never ends does not keep a stranger in
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
        connection = room.service.callers[1].connection
        await echo(known)
        assert room.service.callers[-1].connection == connection


async def test_a_stranger_may_send_so_much_and_who_is_known_as_much_as_a_message_holds(tmp_path):
    """Whatever the calls: what has come of messages that are not whole yet is held, for 256 of them a connection."""
    ca = real_ca()
    limits = DoorLimits(connections=64, anonymous_bytes=64 * 1024)
    async with (
        tls_door(tmp_path, ca, limits=limits) as room,
        room.dial(None, ca.bundle()) as stranger,
        room.dial(ca.issue("/a"), ca.bundle()) as known,
    ):
        assert await echo(stranger, bytes(16 * 1024))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await echo(stranger, bytes(64 * 1024))
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await echo(stranger), "over a new connection"
        assert await echo(known, bytes(MIB))


@pytest.mark.parametrize("door", ["unix", "tls"])
async def test_a_client_that_never_reads_stops_its_sender_and_nobody_else(tmp_path, door):
    ca = real_ca()
    opened = unix_door(tmp_path) if door == "unix" else tls_door(tmp_path, ca)
    async with opened as room:
        context = None if door == "unix" else hostile_context(tmp_path, _workload(ca))
        target = room.door.address
        with ExitStack() as stack:
            raw = connected(stack, target)
            raw.setblocking(True)
            raw.settimeout(PATIENCE)
            sock = raw if context is None else stack.enter_context(await asyncio.to_thread(context.wrap_socket, raw))
            await asyncio.to_thread(sock.sendall, http2_call("/test.Echo/Flood", b""))
            before = resident()
            await eventually(lambda: room.service.flooded > 0)
            sent = await settled(lambda: room.service.flooded)
            assert sent < 64 * FLOODED
            assert resident() - before < 64 * MIB
            assert not room.service.cancelled.is_set()
        async with asyncio.timeout(PATIENCE):
            await room.service.cancelled.wait()  # the connection went, and its call with it


async def test_a_mute_peer_is_noticed_and_a_quiet_one_is_not(tmp_path):
    limits = DoorLimits(connections=64, mute=1.0, mute_timeout=0.5)
    async with unix_door(tmp_path, limits=limits) as room, room.local() as quiet:
        await echo(quiet)
        with ExitStack() as stack:
            mute = connected(stack, room.door.address)
            mute.setblocking(True)
            mute.sendall(http2_call("/test.Echo/Wait", b""))  # and not a word more, not even to a ping
            await eventually(lambda: room.door.connections == 2)
            async with asyncio.timeout(PATIENCE):
                await room.service.cancelled.wait()
            await eventually(lambda: room.door.connections == 1)
        connection = room.service.callers[0].connection
        await echo(quiet)
        assert room.service.callers[-1].connection == connection


def _answer_until_quiet(sock: socket.socket) -> None:
    """Be a client that acknowledges SETTINGS and PING (RFC 9113 6.5.3, 6.7), until there was nothing for a while."""
    sock.settimeout(0.5)
    with suppress(TimeoutError), sock.makefile("rb") as frames:
        while head := frames.read(9):
            payload = frames.read(int.from_bytes(head[:3]))
            if head[3:5] == b"\4\0":
                sock.sendall(b"\0\0\0\4\1\0\0\0\0")
            elif head[3:5] == b"\6\0":
                sock.sendall(b"\0\0\x08\6\1\0\0\0\0" + payload)


@pytest.mark.parametrize("says", [PREFACE + SETTINGS, http2_call("/test.Echo/Wait", b"")], ids=["idle", "in a call"])
async def test_a_peer_that_falls_mute_after_all_was_well_is_noticed(tmp_path, says):
    limits = DoorLimits(connections=64, mute=1.0, mute_timeout=0.5)
    async with unix_door(tmp_path, limits=limits) as room:
        with ExitStack() as stack:
            peer = connected(stack, room.door.address)
            peer.setblocking(True)
            peer.sendall(says)
            await asyncio.to_thread(_answer_until_quiet, peer)
            assert room.door.connections == 1
            await eventually(lambda: room.door.connections == 0)


async def test_a_peer_that_never_greets_in_http2_is_not_waited_for(tmp_path):
    async with unix_door(tmp_path) as room:
        with ExitStack() as stack:
            silent = connected(stack, room.door.address)
            silent.setblocking(True)
            silent.settimeout(PATIENCE)
            heard = b""
            while part := await asyncio.to_thread(silent.recv, 65536):
                heard += part
        assert heard.startswith(b"\0\0")  # grpc's own greeting, and then the end
        await eventually(lambda: room.door.connections == 0)


async def test_a_connection_has_so_many_calls_at_a_time(tmp_path):
    limits = DoorLimits(connections=64, streams_per_connection=2)
    async with unix_door(tmp_path, limits=limits) as room, room.local() as channel:
        waiting = [channel.unary_stream("/test.Echo/Wait")(b"") for _ in range(2)]
        for each in waiting:
            await each.read()
        third = asyncio.create_task(echo(channel))
        done, _ = await asyncio.wait({third}, timeout=0.5)
        assert not done
        waiting[0].cancel()
        assert await third == b"hello"
        waiting[1].cancel()


async def test_no_call_fails_when_connections_are_too_old(tmp_path):
    ca = real_ca()
    limits = DoorLimits(connections=64, connection_age=0.5)
    async with tls_door(tmp_path, ca, limits=limits) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        stream = channel.unary_stream("/test.Echo/Wait")(b"")
        await stream.read()
        async with asyncio.timeout(PATIENCE):
            while len({caller.connection for caller in room.service.callers}) < 4:
                assert await echo(channel) == b"hello"
        assert not stream.done()  # it outlives the age of its connection
        stream.cancel()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(65536), os.urandom(65536)])
async def test_garbage_on_a_local_socket_costs_its_connection_and_no_other(tmp_path, garbage):
    async with unix_door(tmp_path) as room, room.local() as neighbour:
        await echo(neighbour)
        with ExitStack() as stack:
            hostile = connected(stack, room.door.address)
            await asyncio.get_running_loop().sock_sendall(hostile, garbage)
            await eventually(lambda: room.door.connections == 1)
        assert await echo(neighbour) == b"hello"


def _workload(ca) -> Shown:
    svid = ca.issue("/a")
    return Shown(svid.chain, svid.private_key)
