"""Other users of the machine at a door: the kernel says who they are, and what is behind the door is closed to them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.doors import http2_call, unix_door

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user"),
]
NOBODY = 65534

# It becomes the other user by itself: an interpreter in somebody's home could not be started as one.
_STRANGER = """
import os, socket, sys
os.setgroups([]); os.setresgid({nobody}, {nobody}, {nobody}); os.setresuid({nobody}, {nobody}, {nobody})
said = sys.stdin.buffer.read()
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
except PermissionError:
    sys.exit(13)
heard = b""
try:
    sock.sendall(said)
    while b"hello there" not in heard:
        part = sock.recv(65536)
        if not part:
            sys.exit(1)
        heard += part
except ConnectionError:
    sys.exit(1)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="door") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def as_nobody(path: str) -> int:
    """Call through this socket as another user; return 0 for an answer, 13 for a closed folder, 1 for a refusal."""
    command = [sys.executable, "-c", _STRANGER.format(nobody=NOBODY), path]
    said = http2_call("/test.Echo/Echo", b"hello there")
    ended = await asyncio.to_thread(subprocess.run, command, input=said, capture_output=True, check=False, timeout=20)
    assert ended.stderr == b""
    return ended.returncode


async def test_the_effective_uid_and_gid_of_another_user_arrive(place):
    async with unix_door(place, mode=0o666) as room:
        assert await as_nobody(str(place / "door.sock")) == 0
        (caller,) = room.service.callers
        assert (caller.process.uid, caller.process.gid) == (NOBODY, NOBODY)


async def test_a_user_who_can_reach_the_socket_and_is_not_admitted_is_refused(place):
    async with unix_door(place, mode=0o666, admits=lambda uid: uid == 0) as room:
        assert await as_nobody(str(place / "door.sock")) == 1
        assert room.has_let_nobody_in()
        assert [(event["reason"], event["uid"]) for event in room.audit.events] == [("not_admitted", NOBODY)]


async def test_a_socket_that_is_ours_alone_is_closed_to_others(place):
    async with unix_door(place, mode=0o600) as room:
        assert await as_nobody(str(place / "door.sock")) == 13
        assert room.has_let_nobody_in()


async def test_the_private_sockets_are_closed_to_others(place):
    async with unix_door(place, mode=0o666) as room:
        assert await as_nobody(str(room.door.private_directory / "1")) == 13
        assert room.service.callers == []
