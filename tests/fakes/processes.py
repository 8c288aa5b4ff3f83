"""Real processes at the other end of real unix sockets, for tests of who is calling."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from livery.runtime.caller import PeerProcess
from livery.runtime.transport.peer import process_of

# Connects, then does what it is told on standard input: `become PROGRAM` executes another program over the same
# connection, `fork` leaves the connection to a child and ends.
PROGRAM = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
os.set_inheritable(s.fileno(), True)
for line in open(0, "rb", buffering=0):  # unbuffered: what follows a `become` is the next program's
    words = line.decode().split()
    if words[0] == "become":
        os.execv(words[1], words[1:])
    if words[0] == "fork":
        if os.fork():
            os._exit(0)
        print(os.getpid(), flush=True)
"""


@dataclass
class Peer:
    """A process that has connected to us, as the kernel named it then."""

    popen: subprocess.Popen[bytes]
    process: PeerProcess

    def tell(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()


@contextmanager
def connected(interpreter: str | Path = sys.executable, first: str = "", **options: object) -> Iterator[Peer]:
    """A process of this interpreter that connected to us, after running `first`.

    `options` are Popen's (user, group, extra_groups).
    """
    with tempfile.TemporaryDirectory(prefix="lv") as directory, socket.socket(socket.AF_UNIX) as listener:
        Path(directory).chmod(0o755)
        path = f"{directory}/s"
        listener.bind(path)
        Path(path).chmod(0o777)
        listener.listen()
        command: Sequence[str] = [str(interpreter), "-c", first + PROGRAM, path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, **pipes, **options) as popen:  # type: ignore[call-overload]
            accepted, _ = listener.accept()
            with accepted:
                process = process_of(accepted)
                try:
                    yield Peer(popen, process)
                finally:
                    os.close(process.pidfd)
                    popen.kill()
