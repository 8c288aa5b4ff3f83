"""A process that opens a Workload API stream, hands the connection to us, and then becomes something else, or ends.

It is what an impostor would do: connect as itself, and have the answer arrive when it looks like somebody trusted.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import http2

PROGRAM = """
import os, socket, sys
api, ours, request = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
call = socket.socket(socket.AF_UNIX); call.connect(api); call.sendall(request)
home = socket.socket(socket.AF_UNIX); home.connect(ours)
socket.send_fds(home, [b"x"], [call.fileno()])
for line in open(0, "rb", buffering=0):
    if line == b"become cat\\n":
        os.execv("/bin/cat", ["cat"])
"""


@dataclass
class Handover:
    """The process, and its connection in our hands."""

    popen: subprocess.Popen[bytes]
    connection: socket.socket

    async def become_another_program(self) -> None:
        await self._tell(b"become cat\n")
        await self._tell(b"done\n")
        assert self.popen.stdout is not None
        assert await asyncio.to_thread(self.popen.stdout.readline) == b"done\n"

    async def end(self) -> None:
        self.popen.kill()
        await asyncio.to_thread(self.popen.wait)

    async def answer(self) -> bytes:
        """What the agent sent into the stream, once it has ended it or five seconds have passed."""
        self.connection.settimeout(5)
        return await asyncio.to_thread(http2.answer, self.connection)

    async def first_data(self) -> bytes:
        """The first bytes of an answer."""
        self.connection.settimeout(20)
        frames = http2.frames(self.connection)
        return await asyncio.to_thread(next, (f.payload for f in frames if f.kind == http2.DATA))

    async def _tell(self, line: bytes) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line)
        self.popen.stdin.flush()


@asynccontextmanager
async def handover(
    api: Path, directory: Path, method: str = "FetchX509SVID", message: bytes = b""
) -> AsyncIterator[Handover]:
    """A process that called the Workload API at `api` (for its X.509-SVIDs) and gave us the connection."""
    request = http2.grpc_call(f"/SpiffeWorkloadAPI/{method}", {"workload.spiffe.io": "true"}, message)
    with socket.socket(socket.AF_UNIX) as home:
        home.bind(str(directory / "home"))
        home.listen()
        command = [sys.executable, "-c", PROGRAM, str(api), str(directory / "home"), request.hex()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
            accepted, _ = await asyncio.to_thread(home.accept)
            with accepted:
                _, (descriptor,), _, _ = await asyncio.to_thread(socket.recv_fds, accepted, 1, 1)
            with socket.socket(fileno=descriptor) as connection:
                yield Handover(popen, connection)
            popen.kill()
    (directory / "home").unlink()
