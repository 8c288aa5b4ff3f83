"""Time passes while connections are open: certificates are swapped, authorities removed, identities end."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from cryptography import x509

from livery.identity import BundleMap, TrustBundle
from livery.runtime.transport.limits import DoorLimits
from tests.fakes.clock import FakeClock, settle
from tests.integration.doors import SERVER, HeldIdentity, echo, eventually, hostile_context, now, real_ca, tls_door

HOUR = timedelta(hours=1)


def serial_shown(port: int, folder) -> int:
    with socket.create_connection(("127.0.0.1", port), 10) as raw, hostile_context(folder).wrap_socket(raw) as tls:
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number


async def test_the_time_for_a_handshake_ends_with_it(tmp_path):
    ca, loop = real_ca(), asyncio.get_running_loop()
    limits = DoorLimits(connections=64, handshake_timeout=1.0)
    async with tls_door(tmp_path, ca, limits=limits) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        await echo(channel)
        later = loop.time() + 1.2
        await eventually(lambda: loop.time() > later)
        await echo(channel)
        assert len({caller.connection for caller in room.service.callers}) == 1


async def test_a_new_certificate_is_shown_from_the_next_connection_and_drops_none(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        chat = channel.stream_stream("/test.Echo/Chat")()
        await chat.write(b"before")
        assert await chat.read() == b"before"
        room.identity.held = ca.issue(SERVER)
        assert await asyncio.to_thread(serial_shown, room.port, tmp_path) == room.identity.held.serial
        await chat.write(b"after")
        assert await chat.read() == b"after"
        await echo(channel)
        assert len({caller.connection for caller in room.service.callers}) == 1
        await chat.done_writing()


async def test_no_call_fails_while_certificates_are_swapped_again_and_again(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        for _ in range(20):
            room.identity.held = ca.issue(SERVER)
            async with room.dial(ca.issue("/b"), ca.bundle()) as newcomer:
                assert await asyncio.gather(echo(channel), echo(newcomer)) == [b"hello", b"hello"]


async def test_an_authority_added_to_the_bundle_counts_from_the_next_connection(tmp_path):
    old, new = real_ca(), real_ca()
    async with tls_door(tmp_path, old) as room:
        both = TrustBundle(old.trust_domain, old.bundle().x509_authorities + new.bundle().x509_authorities)
        room.identity.known = BundleMap.of(both)
        async with room.dial(new.issue("/a"), old.bundle()) as channel:
            assert await echo(channel) == b"hello"


async def rotated_room(stack, tmp_path, **options):
    """A door that trusts two authorities of its domain, and a stream of a caller of each."""
    old, new = real_ca(), real_ca()
    both = TrustBundle(old.trust_domain, old.bundle().x509_authorities + new.bundle().x509_authorities)
    identity = HeldIdentity(new.issue(SERVER), both)
    room = await stack.enter_async_context(tls_door(tmp_path, new, identity=identity, **options))
    streams = []
    for ca in (old, new):
        channel = await stack.enter_async_context(room.dial(ca.issue("/a"), both))
        streams.append(channel.unary_stream("/test.Echo/Wait")(b""))
        assert await streams[-1].read() == b"waiting"
    return room, new, streams


@pytest.mark.parametrize("told", [True, False], ids=["told at once", "noticed by itself"])
async def test_connections_of_a_removed_authority_are_closed_streams_included(tmp_path, told):
    async with AsyncExitStack() as stack:
        clock = FakeClock(now())
        room, new, (of_old, of_new) = await rotated_room(stack, tmp_path, clock=clock)
        room.identity.known = BundleMap.of(new.bundle())
        if told:
            await room.door.recheck()
        else:
            await clock.run_for(2.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await of_old.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        (event,) = room.audit.of("connection.keep")
        assert (event["reason"], event["caller"]) == ("untrusted_x509_svid", "spiffe://example.org/a")
        await eventually(lambda: room.door.connections == 1)
        assert not of_new.done()
        of_new.cancel()


async def test_a_caller_no_longer_admitted_is_closed_at_the_next_recheck(tmp_path):
    ca = real_ca()
    banned = set()
    async with (
        tls_door(tmp_path, ca, admits_id=lambda one: "banned" if str(one) in banned else None) as room,
        room.dial(ca.issue("/a"), ca.bundle()) as channel,
    ):
        await echo(channel)
        banned.add("spiffe://example.org/a")
        await room.door.recheck()
        await eventually(lambda: room.door.connections == 0)
        with pytest.raises(grpc.aio.AioRpcError):
            await echo(channel, timeout=1.0)


async def test_an_expired_caller_is_refused_on_every_call_of_a_connection_kept_alive(tmp_path):
    ca = real_ca()
    clock = FakeClock(now())
    async with (
        tls_door(tmp_path, ca, clock=clock) as room,
        room.dial(ca.issue("/short", HOUR), ca.bundle()) as short,
        room.dial(ca.issue("/long", 3 * HOUR), ca.bundle()) as long,
    ):
        await echo(short)
        await echo(long)
        clock.advance(HOUR + timedelta(seconds=1))
        await settle()
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo(short)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "expired" in str(caught.value.details())
        assert await echo(long) == b"hello"
        assert len(room.service.callers) == 3


async def test_an_expired_callers_streams_end_after_a_grace(tmp_path):
    ca = real_ca()
    clock = FakeClock(now())
    limits = DoorLimits(connections=64, expired_grace=10)
    async with (
        tls_door(tmp_path, ca, clock=clock, limits=limits) as room,
        room.dial(ca.issue("/a", HOUR), ca.bundle()) as channel,
    ):
        stream = channel.unary_stream("/test.Echo/Wait")(b"")
        await stream.read()
        await clock.run_for(HOUR + timedelta(seconds=5))
        assert room.door.connections == 1
        await clock.run_for(10)
        await eventually(lambda: room.door.connections == 0)
        assert room.reasons == ["identity_expired"]
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()


async def test_in_the_last_quarter_of_an_identitys_life_its_next_call_comes_by_a_new_connection(tmp_path):
    ca = real_ca()
    clock = FakeClock(now())
    async with (
        tls_door(tmp_path, ca, clock=clock) as room,
        room.dial(ca.issue("/a", HOUR), ca.bundle()) as channel,
    ):
        chat = channel.stream_stream("/test.Echo/Chat")()
        await chat.write(b"one")
        assert await chat.read() == b"one"
        await clock.run_for(timedelta(minutes=44))
        await echo(channel)
        await clock.run_for(timedelta(minutes=2))
        await eventually_new_connection(room, channel)
        await chat.write(b"two")  # the old connection lives on for what is under way
        assert await chat.read() == b"two"
        first, second, *_, newest, last = (caller.connection for caller in room.service.callers)
        assert first == second == last != newest
        seen = len({caller.connection for caller in room.service.callers})
        await clock.run_for(timedelta(minutes=2))
        await echo(channel)
        assert len({caller.connection for caller in room.service.callers}) == seen  # and is not turned away again
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        await clock.run_for(10)
        await eventually(lambda: room.door.connections == 1)  # the old one is closed with its last call
        assert room.audit.events == []


async def eventually_new_connection(room, channel) -> None:
    first = room.service.callers[0].connection
    async with asyncio.timeout(10):
        while room.service.callers[-1].connection == first:
            await echo(channel)  # not one of them fails


async def test_new_bundles_do_not_cut_an_expired_callers_grace_short(tmp_path):
    ca = real_ca()
    clock = FakeClock(now())
    async with (
        tls_door(tmp_path, ca, clock=clock) as room,
        room.dial(ca.issue("/a", HOUR), ca.bundle()) as channel,
    ):
        await echo(channel)
        clock.advance(HOUR + timedelta(seconds=5))
        await settle()
        await room.door.recheck()
        assert room.reasons == []
        assert room.door.connections == 1


async def test_a_recheck_that_failed_halfway_is_done_again(tmp_path):
    staying, leaving, faults = real_ca(), real_ca(), []

    def admits(_spiffe_id):
        if faults:
            raise faults.pop()

    both = TrustBundle(staying.trust_domain, staying.bundle().x509_authorities + leaving.bundle().x509_authorities)
    async with tls_door(tmp_path, staying, admits_id=admits) as room:
        room.identity.known = BundleMap.of(both)
        async with (
            room.dial(staying.issue("/a"), staying.bundle()) as first,
            room.dial(leaving.issue("/b"), staying.bundle()) as second,
        ):
            await echo(first)
            await echo(second)
            faults.append(RuntimeError("a bug in somebody's rule"))
            room.identity.known = BundleMap.of(staying.bundle())
            await eventually(lambda: room.door.connections == 1)
            assert not faults
            await echo(first)


async def test_what_the_door_needs_of_its_identity_failing_is_said_and_mends_itself(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room:
        sound = room.identity.held

        def broken():
            raise OSError(5, "Input/output error")

        room.identity.svid = broken
        async with room.dial(None, ca.bundle()) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await echo(channel, timeout=0.5)
            await eventually(lambda: 'reason="no_identity"' in room.metrics.render().decode())
            room.identity.svid = lambda: sound
            assert await channel.unary_unary("/test.Echo/Echo")(b"hello", wait_for_ready=True, timeout=10) == b"hello"


async def test_a_bug_in_what_the_door_asks_for_costs_its_connection_and_holds_no_place(tmp_path):
    ca, told = real_ca(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with tls_door(tmp_path, ca) as room:
        sound, admission = room.identity.bundles, room.door._opened.gate.admission
        room.identity.bundles = lambda: {}["a bug"]
        with socket.create_connection(("127.0.0.1", room.port), 10) as mute:
            assert await asyncio.to_thread(mute.recv, 100) == b""
        await eventually(lambda: admission.count("connections") == 0)
        assert [type(error) for error in told] == [KeyError]
        room.identity.bundles = sound
        async with room.dial(ca.issue("/a"), ca.bundle()) as channel:
            assert await echo(channel) == b"hello"
