"""A role ends when it is asked to, within bounds, and says so to systemd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from livery.runtime.lifecycle import all_at_once, notify

_ROLE = """
import asyncio, resource, sys
from livery.runtime.lifecycle import run_role
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

async def role():
    print(type(asyncio.get_running_loop()).__module__, flush=True)
    try:
        {work}
    except asyncio.CancelledError:
        print("asked", flush=True)
        {cleanup}
        print("cleaned up", flush=True)
        raise

run_role(role(), grace={grace}, leash={leash})
print("over", flush=True)
"""
WAIT, NOTHING, DAWDLE = "await asyncio.Event().wait()", "pass", "await asyncio.sleep(60)"


class Running:
    """A role in a process of its own."""

    def __init__(self, work=WAIT, cleanup=NOTHING, grace=10.0, leash=None) -> None:
        code = _ROLE.format(work=work, cleanup=cleanup, grace=grace, leash=leash)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __enter__(self) -> Running:
        assert self.line() == "uvloop"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def rest(self) -> tuple[str, str, int]:
        # Not communicate(), which would lose what `line` has read ahead; both are short, so neither pipe can fill up.
        out, err = self.process.stdout.read(), self.process.stderr.read()
        return out, err, self.process.wait(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_asks_and_the_role_cleans_up(number):
    with Running() as role:
        role.process.send_signal(number)
        out, _, code = role.rest()
        assert out.split("\n")[:-1][-3:] == ["asked", "cleaned up", "over"]
        assert code == 0


def test_a_role_that_ends_by_itself_ends_well():
    with Running(work="return") as role:
        assert role.rest()[0].endswith("over\n")


def test_what_a_role_raises_is_raised():
    with Running(work="raise LookupError('this')") as role:
        out, err, code = role.rest()
        assert "over" not in out
        assert "LookupError: this" in err
        assert code == 1


def test_a_role_that_does_not_clean_up_in_time_is_cut_off():
    with Running(cleanup=DAWDLE, grace=0.2) as role:
        role.process.send_signal(signal.SIGTERM)
        _, err, code = role.rest()
        assert "DidNotStop: the role did not stop in time: it was asked to, and given 0.2 s" in err
        assert code == 1


def test_a_second_signal_cuts():
    with Running(cleanup=DAWDLE, grace=60) as role:
        role.process.send_signal(signal.SIGTERM)
        while role.line() != "asked":
            pass
        role.process.send_signal(signal.SIGTERM)
        assert "DidNotStop: the role did not stop in time: a second signal cut it off" in role.rest()[1]


def test_a_role_stops_when_its_leash_is_let_go():
    with Running(leash=0) as role:
        role.process.stdin.close()
        role.process.stdin = None
        assert role.rest()[0].endswith("cleaned up\nover\n")


def test_a_role_may_open_as_many_files_as_the_kernel_allows():
    with Running(work="print(*resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)") as role:
        soft, hard = role.line().split()
        assert soft == hard != "256"


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract name"])
def test_systemd_is_told(tmp_path, abstract):
    name = f"@livery-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        notify("READY=1", {"NOTIFY_SOCKET": name})
        systemd.settimeout(5)
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere"}])
def test_without_systemd_nothing_is_told_and_nothing_fails(environ):
    notify("READY=1", environ)


async def test_what_ends_one_work_of_several_ends_all_and_is_raised_as_it_is() -> None:
    """Not as a group of one, which tells whoever reads the last line nothing."""
    ended = asyncio.Event()

    async def lasting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def failing() -> None:
        raise LookupError("the one that counts")

    with pytest.raises(LookupError, match="the one that counts"):
        await all_at_once((lasting(), failing()))
    assert ended.is_set()
