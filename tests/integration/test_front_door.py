"""The front door: who calls arrives with every call, and what surrounds a call is the same for all of them."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog
from google.rpc.status_pb2 import Status

from livery.errors import Kind, LiveryError
from livery.runtime.clock import SystemClock
from livery.runtime.descriptors import TooFewDescriptors
from livery.runtime.files import FileNotWritten
from livery.runtime.front_door import FrontDoor
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import CannotListen, TcpListen, UnixListen
from livery.runtime.transport.private_directory import MAX_SOCKET_PATH
from tests.fakes.audit import RecordingAudit
from tests.integration.doors import (
    RESET,
    SERVER,
    HeldIdentity,
    echo,
    eventually,
    http2_call,
    open_door,
    real_ca,
    tls_door,
    unix_door,
)


async def test_the_pid_and_uid_of_a_local_caller_arrive(tmp_path):
    async with unix_door(tmp_path) as room, room.local() as channel:
        assert await echo(channel) == b"hello"
        (caller,) = room.service.callers
        assert caller.process is not None
        assert (caller.process.pid, caller.process.uid, caller.process.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert caller.identity is None
        assert caller.is_local


async def test_callers_with_and_without_a_certificate_come_in_by_one_port(tmp_path):
    ca = real_ca()
    async with (
        tls_door(tmp_path, ca) as room,
        room.dial(ca.issue("/a"), ca.bundle()) as known,
        room.dial(None, ca.bundle()) as stranger,
    ):
        assert await echo(known) == await echo(stranger) == b"hello"
        first, second = room.service.callers
        assert first.identity is not None
        assert str(first.identity.id) == "spiffe://example.org/a"
        assert second.is_anonymous
        assert second.ip == "127.0.0.1"
        assert room.audit.events == []


async def test_every_kind_of_call_knows_its_caller(tmp_path):
    async with unix_door(tmp_path) as room, room.local() as channel:

        async def numbers():
            for number in (1, 2, 3):
                yield b"%d" % number

        assert [each async for each in channel.unary_stream("/test.Echo/Count")(b"3")] == [b"0", b"1", b"2"]
        assert await channel.stream_unary("/test.Echo/Sum")(numbers()) == b"6"
        assert [each async for each in channel.stream_stream("/test.Echo/Chat")(numbers())] == [b"1", b"2", b"3"]
        assert len(room.service.callers) == 7
        assert {caller.process.pid for caller in room.service.callers} == {os.getpid()}


async def test_two_connections_have_two_callers_and_each_call_finds_its_own(tmp_path):
    ca = real_ca()
    async with (
        tls_door(tmp_path, ca) as room,
        room.dial(ca.issue("/a"), ca.bundle()) as one,
        room.dial(ca.issue("/b"), ca.bundle()) as two,
    ):
        await asyncio.gather(*(echo(channel) for _ in range(20) for channel in (one, two)))
        seen = {(caller.connection, str(caller.identity.id)) for caller in room.service.callers}
        assert len(seen) == 2
        assert {spiffe_id for _, spiffe_id in seen} == {"spiffe://example.org/a", "spiffe://example.org/b"}


async def test_large_messages_pass_whole_in_both_directions(tmp_path):
    ca = real_ca()
    large = os.urandom(3 * 1024 * 1024)
    async with tls_door(tmp_path, ca) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        assert await echo(channel, large) == large


async def test_a_message_over_the_limit_is_refused_and_its_connection_goes_on(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo(channel, bytes(10 * 1024 * 1024))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await echo(channel) == b"hello"


async def test_a_connection_that_did_not_come_through_the_door_has_no_caller(tmp_path):
    async with unix_door(tmp_path) as room:
        inside = f"unix:{room.door.private_directory / '1'}"
        async with grpc.aio.insecure_channel(inside) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo(channel)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert room.service.callers == []


async def test_a_bug_of_ours_tells_the_caller_its_class_and_a_request_id_only(tmp_path):
    async with unix_door(tmp_path) as room, room.local() as channel:
        with structlog.testing.capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Echo/Fail")(b"")
        trailers = dict(caught.value.trailing_metadata() or ())
        request_id = trailers["livery-request-id"]
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == f"internal error (request {request_id})"
        failure, call = logs
        assert failure["exc_info"]
        assert failure["request_id"] == call["request_id"] == request_id
        assert (call["event"], call["log_level"], call["code"]) == ("call", "error", "INTERNAL")


async def test_bytes_that_are_no_message_are_the_callers_fault_in_every_kind_of_call(tmp_path):
    sound, broken = Status(message="hello").SerializeToString(), b"\x12\x05he"
    async with unix_door(tmp_path) as room, room.local() as channel:
        one, all_of_them = channel.unary_unary("/test.Echo/Parsed"), channel.stream_unary("/test.Echo/AllParsed")
        assert await one(sound) == b"hello"
        assert await all_of_them(iter([sound, sound])) == b"hello hello"
        for call in (one(broken), all_of_them(iter([sound, broken]))):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "the request cannot be read: its bytes are no message of its type"


async def test_each_call_has_one_log_line_and_one_observation(tmp_path):
    async def note(call):
        call.notes["entry"] = "e1"

    async with unix_door(tmp_path, guards=[note]) as room, room.local() as channel:
        with structlog.testing.capture_logs() as logs:
            await echo(channel)
        (line,) = [each for each in logs if each["event"] == "call"]
        assert line["method"] == "/test.Echo/Echo"
        assert (line["code"], line["entry"]) == ("OK", "e1")
        assert line["caller"] == f"uid:{os.geteuid()}/pid:{os.getpid()}"
        counted = 'livery_rpc_seconds_count{code="OK",method="/test.Echo/Echo"} 1.0'
        assert counted in room.metrics.render().decode()


async def test_a_method_that_does_not_exist_is_unimplemented_and_makes_no_metric_of_its_own(tmp_path):
    async with unix_door(tmp_path) as room, room.local() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Echo/Nothing")(b"")
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        numbers = room.metrics.render().decode()
        assert 'code="UNIMPLEMENTED",method="unknown"' in numbers
        assert "Nothing" not in numbers


class TooOften(LiveryError):
    code = "too_often"
    kind = Kind.EXHAUSTED


async def test_a_guard_refuses_before_the_method_runs(tmp_path):
    async def guard(call):
        raise TooOften("not now", why=call.method)

    async with unix_door(tmp_path, guards=[guard]) as room, room.local() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo(channel)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "not now: /test.Echo/Echo"
        assert room.service.callers == []


async def test_a_cancelled_call_is_cancelled_behind_the_door_too(tmp_path):
    ca = real_ca()
    async with tls_door(tmp_path, ca) as room, room.dial(ca.issue("/a"), ca.bundle()) as channel:
        call = channel.unary_stream("/test.Echo/Wait")(b"")
        assert await call.read() == b"waiting"
        call.cancel()
        async with asyncio.timeout(5):
            await room.service.cancelled.wait()


async def test_a_uid_that_is_not_admitted_does_not_come_in(tmp_path):
    async with unix_door(tmp_path, admits=lambda uid: uid != os.geteuid()) as room, room.local() as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await echo(channel, timeout=1.0)
        assert room.has_let_nobody_in()
        assert room.audit.events[0]["reason"] == "not_admitted"
        assert room.audit.events[0]["uid"] == os.geteuid()


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o777])
async def test_a_unix_socket_has_the_mode_it_was_given_whatever_the_umask(tmp_path, mode):
    async with unix_door(tmp_path, mode=mode) as room:
        status = (tmp_path / "door.sock").stat()
        assert stat.S_IMODE(status.st_mode) == mode
        assert stat.S_IMODE(room.door.private_directory.stat().st_mode) == 0o700


async def test_a_folder_with_strange_characters_in_its_name_works(tmp_path):
    with tempfile.TemporaryDirectory(prefix="lv-") as short:  # else its sockets would go to a folder of another name
        await strange_folder(Path(short) / "a b%2F#?é", tmp_path)


async def strange_folder(strange, tmp_path):
    async with open_door(strange, UnixListen(tmp_path / "plain.sock")) as room, room.local() as channel:
        assert str(room.door.private_directory).startswith(str(strange))
        assert await echo(channel) == b"hello"


async def test_private_sockets_of_a_long_path_go_to_a_short_folder(tmp_path):
    long = tmp_path / ("x" * 100)
    async with open_door(long, UnixListen(tmp_path / "door.sock")) as room, room.local() as channel:
        assert await echo(channel) == b"hello"
        private = room.door.private_directory
        assert not private.is_relative_to(long)
        assert len(os.fsencode(private)) < MAX_SOCKET_PATH
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert not private.exists()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_stopped_door_leaves_nothing_behind(tmp_path):
    before = descriptors()
    async with unix_door(tmp_path) as room, room.local() as channel:
        await echo(channel)
    assert not (tmp_path / "door.sock").exists()
    assert list((tmp_path / "run").iterdir()) == []
    assert descriptors() <= before + 8  # grpc's own threads keep a few


async def test_calls_under_way_may_end_within_the_grace(tmp_path):
    async with unix_door(tmp_path) as room, room.local() as channel:
        chat = channel.stream_stream("/test.Echo/Chat")()
        await chat.write(b"one")
        assert await chat.read() == b"one"
        stopping = asyncio.create_task(room.door.stop(5.0))
        await chat.write(b"two")
        assert await chat.read() == b"two"
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        await stopping


class TestStart:
    """What keeps a door from opening is said in clear words, and nothing is left behind."""

    async def test_a_port_in_use(self, tmp_path):
        ca = real_ca()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = TcpListen("127.0.0.1", taken.getsockname()[1], HeldIdentity(ca.issue(SERVER), ca.bundle()))
            with pytest.raises(CannotListen, match="in use"):
                async with open_door(tmp_path, listen):
                    pass
        assert list((tmp_path / "run").iterdir()) == []

    @pytest.mark.parametrize(("host", "port"), [("no..name", 0), ("name.invalid", 0), ("127.0.0.1", 65536)])
    async def test_an_address_that_is_none(self, tmp_path, host, port):
        ca = real_ca()
        with pytest.raises(CannotListen, match=f"{host}:{port}"):
            async with open_door(tmp_path, TcpListen(host, port, HeldIdentity(ca.issue(SERVER), ca.bundle()))):
                pass

    async def test_an_identity_that_cannot_be_shown(self, tmp_path):
        ca, started = real_ca(), []
        identity = HeldIdentity(ca.issue(SERVER), ca.bundle())
        identity.svid = lambda: 1 / 0  # type: ignore[method-assign]
        door = FrontDoor(
            TcpListen("127.0.0.1", 0, identity),
            services=[started.append],
            run_dir=tmp_path / "run",
            clock=SystemClock(),
            audit=RecordingAudit(),
            metrics=Metrics(),
        )
        with pytest.raises(ZeroDivisionError):
            await door.start()
        assert not started, "a grpc server was started, and nobody stops it"
        assert list((tmp_path / "run").iterdir()) == []

    async def test_a_socket_that_somebody_listens_on(self, tmp_path):
        async with unix_door(tmp_path) as room:
            with pytest.raises(CannotListen, match="another process listens"):
                async with unix_door(tmp_path):
                    pass
            async with room.local() as channel:
                assert await echo(channel) == b"hello"

    async def test_a_socket_left_by_a_killed_process_is_replaced(self, tmp_path):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "door.sock"))
        async with unix_door(tmp_path) as room, room.local() as channel:
            assert await echo(channel) == b"hello"

    async def test_a_file_that_is_no_socket_is_not_removed(self, tmp_path):
        (tmp_path / "door.sock").write_text("precious")
        with pytest.raises(CannotListen, match="not a socket"):
            async with unix_door(tmp_path):
                pass
        assert (tmp_path / "door.sock").read_text() == "precious"

    async def test_a_path_that_is_too_long(self, tmp_path):
        with pytest.raises(CannotListen, match="107 bytes"):
            async with open_door(tmp_path, UnixListen(tmp_path / ("x" * 108))):
                pass

    async def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "run").write_text("in the way")
        with pytest.raises(FileNotWritten, match="run"):
            async with unix_door(tmp_path):
                pass

    async def test_bounds_that_do_not_fit_the_file_limit(self, tmp_path):
        with pytest.raises(TooFewDescriptors, match="need"):
            async with unix_door(tmp_path, limits=DoorLimits(connections=10**9)):
                pass


async def test_an_answer_counts_as_sent_once_it_is_and_not_as_soon_as_it_is_made(tmp_path):
    """One method in a thousand has to know: it goes on after its answer."""
    async with unix_door(tmp_path) as room:
        async with room.local() as channel:
            assert await channel.unary_unary("/test.Echo/Sent")(b"hello") == b"hello"
        await eventually(lambda: (room.service.begun, room.service.sent) == (0, 1))
        _, writer = await asyncio.open_unix_connection(room.door.address.removeprefix("unix:"))
        writer.write(http2_call("/test.Echo/Sent", b"hello", window=0))
        await eventually(lambda: room.service.begun == 1)
        writer.write(RESET)
        await eventually(lambda: room.service.begun == 0)
        assert room.service.sent == 1
        writer.close()


async def test_a_caller_that_goes_away_while_it_is_written_to_is_no_fault_of_ours(tmp_path):
    """gRPC fails the write and cancels the call, in either order."""
    calls = 20
    async with unix_door(tmp_path) as room, room.local() as channel:
        with structlog.testing.capture_logs() as logs:
            for number in range(calls):
                flood = channel.unary_stream("/test.Echo/Flood")(b"")
                await flood.read()
                await asyncio.sleep(0.02 * (number % 2))  # long enough for its window to be full: a write waits
                flood.cancel()
            await eventually(lambda: len([line for line in logs if line["event"] == "call"]) == calls)
    assert {(line["event"], line["code"], line["log_level"]) for line in logs} == {("call", "CANCELLED", "info")}
    assert b'code="INTERNAL"' not in room.metrics.render()
