"""`deploy/` and its document: three machines side by side, set up as the page says; units that systemd takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import click
import pytest

from livery_cli.main import livery as command
from tests.e2e.machines import ROOT, Machines, steps

PAGE = ROOT / "docs" / "deploy.md"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
EXAMPLES = sorted((ROOT / "deploy" / "examples").rglob("*.toml"))
ANALYZE = shutil.which("systemd-analyze")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has: the example's own are kept over a restart, so the kernel cannot be left to choose."""
    with ExitStack() as open_now:
        sockets = [open_now.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """A short folder, for the sockets in it; what was logged there moves to where the search for secrets looks."""
    ca_port, policy_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="lv-") as folder:
        there = Machines(
            Path(folder),
            {
                "0.0.0.0": "127.0.0.1",
                "listen_port = 8081": f"listen_port = {ca_port}",
                "ca.example.org:8081": f"127.0.0.1:{ca_port}",
                "listen_port = 8443": f"listen_port = {policy_port}",
                "policy.example.org:8443": f"localhost:{policy_port}",
                '"policy.example.org"': '"localhost"',
                # The users of the units and of the services: here they are all one.
                "unix:user:livery-policy": f"unix:uid:{os.geteuid()}",
                "unix:user:inventory": f"unix:uid:{os.geteuid()}",
                "unix:user:orders": "unix:uid:4294967294",
            },
        )
        yield there
        there.stop()
        for journal in there.folder.glob("*/*.log"):
            shutil.copy(journal, tmp_path / f"{journal.parent.name}-{journal.name}")


def test_the_page_sets_up_three_machines_as_it_is_written(machines: Machines) -> None:
    printed: dict[str, str] = {}
    for machine, line in steps(PAGE.read_text("utf-8")):
        for each in ("ca", "policy", "shop") if machine == "each" else (machine,):
            printed[line] = machines.type(each, line)
    (answer,) = [text for line, text in printed.items() if "curl" in line]
    assert json.loads(answer)["decision"] is True
    (can,) = [text for line, text in printed.items() if line.startswith("sudo livery can ")]
    assert "shop/orders-reads-stock" in can
    assert printed["sudo livery node list"].count("/join_token/") == 2, "the restored CA knows the nodes of before"
    assert machines.type("shop", "sudo livery agent health"), "and they know it"


def test_what_a_restore_brings_back_is_what_the_file_of_entries_says(machines: Machines) -> None:
    """Backup and restore alone, with a CA alone: an entry made in between is gone, and one deleted is back."""
    page = [(machine, line) for machine, line in steps(PAGE.read_text("utf-8")) if machine in {"each", "ca"}]
    lines = [line for machine, line in page if "scp" not in line and "token" not in line]
    stopped = lines.index("sudo mv /var/lib/livery/ca /var/lib/livery/ca.before")
    for line in lines[: stopped - 1]:
        machines.type("ca", line)
    before = machines.type("ca", "sudo livery entry list -o name")
    (first, *_) = before.split()
    machines.type("ca", f"sudo livery entry delete {first}")
    fields = "--spiffe-id spiffe://example.org/new --parent-id spiffe://example.org/node/shop --selector unix:uid:7"
    machines.type("ca", f"sudo livery entry create {fields}")
    for line in lines[stopped - 1 :]:
        printed = machines.type("ca", line)
    assert printed == "nothing to change\n"
    assert machines.type("ca", "sudo livery entry list -o name") == before


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze on this machine")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    assert ANALYZE is not None
    for unit in UNITS:
        text = unit.read_text("utf-8").replace("/opt/livery/bin/livery", sys.executable)
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run([ANALYZE, "verify", "--man=no", *names], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text("utf-8"), re.MULTILINE)
    program, *words = line.split()
    assert program == "/opt/livery/bin/livery"
    found: click.Command = command
    while words and isinstance(found, click.Group):
        inner = found.get_command(click.Context(found), words.pop(0))
        assert inner is not None, line
        found = inner
    options = {name for parameter in found.params for name in parameter.opts}
    assert [word for word in words if word.startswith("-")] == ["--config"]
    assert "--config" in options
    assert words[-1] == f"/etc/livery/{unit.stem.removeprefix('livery-')}.toml"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_as_a_user_that_is_made_and_sees_who_calls_it(unit: Path) -> None:
    text = unit.read_text("utf-8")
    (user,) = re.findall(r"^User=(.*)$", text, re.MULTILINE)
    made = re.findall(r"^u (\S+) ", (unit.parent / "livery.sysusers.conf").read_text("utf-8"), re.MULTILINE)
    assert user in made
    # A caller in another PID or user namespace, or hidden by /proc, would be refused.
    assert not re.search(r"^(ProtectProc|ProcSubset|PrivateUsers|PrivatePIDs)=", text, re.MULTILINE)


def test_only_the_agent_has_capabilities_and_the_rest_is_alike() -> None:
    """What confines a process is the same in all units, so that a line added to one is not forgotten in another."""
    confined: dict[str, set[str]] = {}
    for unit in UNITS:
        lines = unit.read_text("utf-8").split("MemorySwapMax=0\n")[1].split("[Install]")[0].splitlines()
        kept = {line for line in lines if line and not line.startswith("#")}
        confined[unit.stem] = {line for line in kept if "Capabilit" not in line}
        assert ("AmbientCapabilities=" in "".join(kept)) == (unit.stem == "livery-agent")
        assert ("CapabilityBoundingSet=" in kept) == (unit.stem != "livery-agent")
    assert len({frozenset(lines) for lines in confined.values()}) == 1
    assert len(confined["livery-ca"]) > 20


# It has loaded what it needs before it changes its user: this installation may be root's alone.
AS_NOBODY = """
import ctypes, os, sys
from livery.runtime.clock import SystemClock
from livery_agent.attest.workload.unix import ProgramHashes, program_path
libc, pid, held = ctypes.CDLL(None), int(sys.argv[1]), int(sys.argv[2])
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([]), os.setgid(65534), os.setuid(65534)
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(held, held, 0, 0, 0, 0)
assert libc.capset(header, data) == 0
print(program_path(pid), ProgramHashes(1 << 30, SystemClock()).of(pid) is not None)
"""
NUMBERS = {"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19}  # capability.h


def seen_as_nobody(pid: int, capabilities: Sequence[str]) -> str:
    """What a user with these capabilities, and no others, learns of another user's process."""
    held = sum(1 << NUMBERS[name] for name in capabilities)
    arguments = [sys.executable, "-c", AS_NOBODY, str(pid), str(held)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_the_agents_capabilities_show_it_what_others_run(tmp_path: Path) -> None:
    unit = next(unit for unit in UNITS if unit.stem == "livery-agent").read_text("utf-8")
    (granted,) = re.findall(r"^AmbientCapabilities=(.*)$", unit, re.MULTILINE)
    program = tmp_path / "private-sleep"
    shutil.copy("/usr/bin/sleep", program)
    program.chmod(0o700)
    with subprocess.Popen([str(program), "60"]) as other:
        seen = [seen_as_nobody(other.pid, names) for names in (granted.split(), ["CAP_SYS_PTRACE"], [])]
        other.kill()
    assert seen == [f"{program} True", f"{program} False", "None False"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_setting_of_an_example_is_explained(example: Path) -> None:
    """Each has a comment right above it."""
    lines = example.read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    bare = [line for above, line in pairwise(lines) if re.match(r"\w+ = ", line) and not above.startswith("#")]
    assert bare == []
