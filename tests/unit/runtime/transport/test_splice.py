"""Two connections made into one, without who is at their ends: order, backpressure, half-close and closing."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from livery.runtime.transport.splice import Census, End, close_listener

BUFFERED = 16 * 1024
TOTAL = 8 * 1024 * 1024


@dataclass
class Splice:
    """A splice with both of its far ends in the test's hands."""

    left: socket.socket
    right: socket.socket
    ends: tuple[End, End]
    census: Census


class Hasty(End):
    linger = 0.1


@asynccontextmanager
async def spliced(kind: type[End] = End):
    loop = asyncio.get_running_loop()
    census = Census()
    far, ends = [], []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        far.append(theirs)
        _, end = await loop.create_unix_connection(lambda: kind(BUFFERED, census), sock=ours)
        ends.append(end)
    left, right = ends
    left.join(right)
    right.join(left)
    left.flow()
    right.flow()
    try:
        yield Splice(far[0], far[1], (left, right), census)
    finally:
        await census.close(patience=0)
        for sock in far:
            sock.close()


async def read_all(sock: socket.socket) -> bytes:
    loop, parts = asyncio.get_running_loop(), []
    async with asyncio.timeout(10):
        while part := await loop.sock_recv(sock, 65536):
            parts.append(part)
    return b"".join(parts)


async def test_bytes_arrive_whole_and_in_order_in_both_directions():
    loop = asyncio.get_running_loop()
    async with spliced() as splice:
        there, back = os.urandom(TOTAL), os.urandom(TOTAL)

        async def send(sock, data):
            await loop.sock_sendall(sock, data)
            sock.shutdown(socket.SHUT_WR)

        _, _, at_right, at_left = await asyncio.gather(
            send(splice.left, there), send(splice.right, back), read_all(splice.right), read_all(splice.left)
        )
        assert at_right == there
        assert at_left == back


async def test_a_half_close_passes_through_and_the_other_direction_goes_on():
    loop = asyncio.get_running_loop()
    async with spliced() as splice:
        splice.left.shutdown(socket.SHUT_WR)
        assert await asyncio.wait_for(loop.sock_recv(splice.right, 1), 5) == b""
        await loop.sock_sendall(splice.right, b"still here")
        assert await asyncio.wait_for(loop.sock_recv(splice.left, 100), 5) == b"still here"


@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_half_closed_connection_does_not_stay_for_ever(side):
    async with spliced(Hasty) as splice:
        getattr(splice, side).shutdown(socket.SHUT_WR)  # and the other one never says a word
        async with asyncio.timeout(5):
            await splice.census.empty()


async def test_when_both_directions_have_ended_nothing_is_left():
    async with spliced() as splice:
        splice.left.shutdown(socket.SHUT_WR)
        splice.right.shutdown(socket.SHUT_WR)
        assert await read_all(splice.left) == await read_all(splice.right) == b""
        async with asyncio.timeout(1):
            await splice.census.empty()


@pytest.mark.parametrize("side", ["left", "right"])
async def test_when_one_side_goes_the_other_is_closed_after_its_last_bytes(side):
    loop = asyncio.get_running_loop()
    async with spliced() as splice:
        goes, stays = (splice.left, splice.right) if side == "left" else (splice.right, splice.left)
        await loop.sock_sendall(goes, b"last words")
        goes.close()
        assert await read_all(stays) == b"last words"


async def test_a_reader_that_does_not_read_stops_the_sender():
    loop = asyncio.get_running_loop()
    async with spliced() as splice:
        sending = asyncio.create_task(loop.sock_sendall(splice.left, bytes(4 * TOTAL)))
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        assert not done
        assert splice.ends[1].transport.get_write_buffer_size() <= BUFFERED + 256 * 1024  # and one read
        received = 0
        while received < 4 * TOTAL:
            received += len(await asyncio.wait_for(loop.sock_recv(splice.right, 1024 * 1024), 5))
        await sending


async def test_an_end_that_is_closed_is_gone_although_its_peer_never_reads():
    loop = asyncio.get_running_loop()
    async with spliced(Hasty) as splice:
        sending = asyncio.create_task(loop.sock_sendall(splice.left, bytes(4 * TOTAL)))
        await asyncio.wait({sending}, timeout=0.2)
        splice.ends[1].close()
        async with asyncio.timeout(5):
            await splice.census.empty()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            await sending


async def test_what_comes_before_the_splice_stands_is_kept():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    far, near = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    census = Census()
    with theirs, far:
        _, left = await loop.create_unix_connection(lambda: End(BUFFERED, census), sock=ours)
        left.data_received(b"early ")  # as uvloop does: it begins to read after `connection_made`
        await loop.sock_sendall(theirs, b"late")
        _, right = await loop.create_unix_connection(lambda: End(BUFFERED, census), sock=near)
        left.join(right)
        right.join(left)
        left.flow()
        right.flow()
        theirs.shutdown(socket.SHUT_WR)
        assert await read_all(far) == b"early late"
        await census.close(patience=0)


class Still(asyncio.Transport):
    """A connection that only says whether it is being read."""

    is_read = True

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def is_closing(self):
        return False

    def write(self, data):
        pass

    def pause_reading(self):
        self.is_read = False

    def resume_reading(self):
        self.is_read = True


def test_nothing_is_read_for_a_peer_that_was_too_slow_already_when_the_splice_was_made():
    fast, slow = Still(), Still()
    sender, reader = End(1), End(1)
    sender.connection_made(fast)
    reader.connection_made(slow)
    reader.pause_writing()
    sender.join(reader)
    reader.join(sender)
    for end in (sender, reader):
        end.flow()
    assert (fast.is_read, slow.is_read) == (False, True)
    reader.resume_writing()
    assert fast.is_read


def test_an_end_that_reads_already_is_held_when_it_is_joined_to_one_that_is_full():
    fast, slow = Still(), Still()
    sender, reader = End(1), End(1)
    sender.connection_made(fast)
    reader.connection_made(slow)
    sender.let_go()
    reader.pause_writing()
    reader.join(sender)
    assert not fast.is_read


@pytest.mark.parametrize("turns", range(6))
async def test_a_listener_is_closed_and_what_it_accepted_just_then_is_not_forgotten(tmp_path: Path, turns: int):
    """Whichever turn of the loop the close falls into: an accepted connection is in the census, or never was."""
    loop, census = asyncio.get_running_loop(), Census()
    listener = await loop.create_unix_server(lambda: End(BUFFERED, census), str(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await close_listener(listener)
        await census.close(patience=0)
        client.settimeout(5)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    gc.collect()  # a connection that nobody closed complains now
