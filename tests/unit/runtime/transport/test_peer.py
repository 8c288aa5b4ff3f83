"""The kernel's word about a peer: who it is, and whether it still is."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from livery.runtime.caller import PeerProcess
from livery.runtime.transport.peer import SO_PEERPIDFD, PeerGone, process_of, still_same

_CONNECT = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print("up", flush=True); sys.stdin.readline()
"""

_CONNECT_THEN_BECOME_CAT = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); os.set_inheritable(s.fileno(), True)
os.read(0, 4); os.execv("/bin/cat", ["cat"])
"""


class OldKernel:
    """A socket on a kernel before 6.5, which does not know SO_PEERPIDFD."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes:
        if optname == SO_PEERPIDFD:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return self._sock.getsockopt(level, optname, buflen)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


@pytest.fixture
def child(tmp_path):
    """A connected child process: its Popen and our end of the socket."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        command = [sys.executable, "-c", _CONNECT, path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            accepted, _ = listener.accept()
            with accepted:
                yield process, accepted
            process.kill()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def release(process: PeerProcess) -> None:
    os.close(process.pidfd)


@pytest.mark.parametrize("kernel", [lambda sock: sock, OldKernel], ids=["SO_PEERPIDFD", "SO_PEERCRED"])
def test_a_connected_process_is_named_with_pid_uid_gid_and_start_time(child, kernel):
    popen, sock = child
    process = process_of(kernel(sock))
    started = int(Path(f"/proc/{popen.pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert (process.pid, process.uid, process.gid) == (popen.pid, os.geteuid(), os.getegid())
    assert process.start_time == started
    still_same(process)
    release(process)


@pytest.mark.parametrize("kernel", [lambda sock: sock, OldKernel], ids=["SO_PEERPIDFD", "SO_PEERCRED"])
def test_a_process_that_ended_before_it_was_asked_for_is_refused_and_leaks_no_descriptor(child, kernel):
    popen, sock = child
    popen.kill()
    popen.wait()
    before = descriptors()
    with pytest.raises(PeerGone):
        process_of(kernel(sock))
    assert descriptors() == before


def test_a_process_that_ends_later_is_no_longer_the_same(child):
    popen, sock = child
    process = process_of(sock)
    popen.kill()
    popen.wait()
    with pytest.raises(PeerGone):
        still_same(process)
    release(process)


def test_a_zombie_has_ended_although_its_number_is_still_taken(child):
    popen, sock = child
    process = process_of(sock)
    popen.kill()
    os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(PeerGone, match="ended"):
        still_same(process)
    release(process)


def test_a_recycled_number_is_recognised_by_its_start_time(pair):
    process = process_of(pair)
    with pytest.raises(PeerGone, match="another process"):
        still_same(replace(process, start_time=process.start_time - 1))
    release(process)


def test_a_process_that_changed_its_effective_uid_is_refused(pair):
    process = process_of(pair)
    with pytest.raises(PeerGone, match="changed who it is"):
        still_same(replace(process, uid=process.uid + 1))
    release(process)


def test_a_process_that_changed_its_effective_uid_before_it_was_asked_for_leaks_no_descriptor(pair):
    class SomebodyElse(OldKernel):
        def getsockopt(self, level: int, optname: int, buflen: int) -> bytes:
            if optname == socket.SO_PEERCRED:
                return struct.pack("3i", os.getpid(), os.geteuid() + 1, os.getegid())
            return super().getsockopt(level, optname, buflen)

    before = descriptors()
    with pytest.raises(PeerGone, match="changed who it is"):
        process_of(SomebodyElse(pair))
    assert descriptors() == before


def test_a_process_that_became_another_program_is_refused(tmp_path):
    """The number, the start time, the user and even the connection survive an exec; the program does not."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        command = [sys.executable, "-c", _CONNECT_THEN_BECOME_CAT, path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as popen:
            accepted, _ = listener.accept()
            with accepted:
                process = process_of(accepted)
                still_same(process)
                popen.stdin.write(b"now\nI am cat\n")
                assert popen.stdout.read(8) == b"I am cat"
                with pytest.raises(PeerGone, match="another program"):
                    still_same(process)
                release(process)
            popen.kill()


def test_a_failure_of_a_kernel_that_has_pidfds_is_not_answered_by_looking_up_a_number(pair):
    """From 6.5 on a peer that has ended may be an error, and its number somebody else's."""

    class Reaped(OldKernel):
        def getsockopt(self, level: int, optname: int, buflen: int) -> bytes:
            if optname == SO_PEERPIDFD:
                raise OSError(errno.ESRCH, "No such process")
            return super().getsockopt(level, optname, buflen)

    with pytest.raises(PeerGone, match="No such process"):
        process_of(Reaped(pair))


def test_a_peer_that_this_namespace_cannot_see_is_refused(pair):
    class Outside(OldKernel):
        def getsockopt(self, level: int, optname: int, buflen: int) -> bytes:
            if optname == socket.SO_PEERCRED:
                return bytes(12)
            return super().getsockopt(level, optname, buflen)

    with pytest.raises(PeerGone, match="namespace"):
        process_of(Outside(pair))


def test_a_process_that_cannot_be_looked_at_for_want_of_descriptors_leaks_none(pair):
    """The kernel's pidfd is the last one to be had: the next connection must find it free again."""
    last = os.dup(pair.fileno())
    os.close(last)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            process_of(pair)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(last)
