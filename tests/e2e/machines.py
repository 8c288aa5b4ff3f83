"""The machines of `docs/deploy.md`, side by side on this one: a folder each, in which its absolute paths stand.

Owns: typing the document's lines on the machine they are for, and being systemd for the units they install: the
directories, the umask, some of the confinement, the word READY=1, SIGTERM and the exit code. What one machine cannot
show is done without: other users (everything runs as the tests' own), and installing, since livery is there already.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.running import tail

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh (\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
READY_WITHIN = 60.0  # seconds
# What this machine stands in for: one without other users, without systemd, and without a second host.
STAND_INS = {
    # What is root's by default is not another user's.
    "sudo": 'if [ "$1" = -u ]; then shift 2; unset ${!LIVERY_*} SPIFFE_ENDPOINT_SOCKET; fi\nexec "$@"',
    "chown": "exit 0",
    "systemd-sysusers": "exit 0",
    "scp": 'to="${!#}"\nmkdir -p "$MACHINES/${to%%.*}"\ncp "${@:1:$#-1}" "$MACHINES/${to%%.*}"',
}
_INSTALLING = re.compile(r"^sudo (python3 -m venv|/opt/livery/bin/pip|ln -sf /opt/livery)")


def steps(document: str) -> Iterator[tuple[str, str]]:
    """The commands of a document, each with the machine it is for; a line that ends with a backslash goes on."""
    for machine, block in BLOCK.findall(document):
        pending = ""
        for line in block.splitlines():
            pending += line + "\n"
            if not line.endswith("\\") and pending.count("'") % 2 == 0:
                yield machine, pending.strip()
                pending = ""


@dataclass
class Machines:
    """All of them. `here` says what stands for what: paths, names and ports."""

    folder: Path
    here: dict[str, str] = field(default_factory=dict)
    running: dict[tuple[str, str], Service] = field(default_factory=dict)

    def __post_init__(self) -> None:
        commands = self.folder / "bin"
        commands.mkdir()
        for name, text in STAND_INS.items():
            (commands / name).write_text(f"#!/bin/bash\n{text}\n")
            (commands / name).chmod(0o755)

    def type(self, machine: str, command: str) -> str:
        """Type a command on a machine; what it printed. Fails unless it ends well."""
        if _INSTALLING.match(command):
            return ""
        folder = self._folder(machine)
        if command.startswith("sudo systemctl "):
            self._systemctl(machine, *shlex.split(command)[2:])
            return ""
        done = subprocess.run(
            ["bash", "-uc", self.rewritten(machine, command)],
            cwd=folder,
            env=self._environment(machine),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{machine}$ {command}\n{done.stdout}{done.stderr}{self.told()}"
        return done.stdout

    def rewritten(self, machine: str, text: str) -> str:
        """A text of the document or of `deploy/` as it is on a machine."""
        for old, new in {**self.here, **self._paths(machine)}.items():
            text = text.replace(old, new)
        return text

    def _paths(self, machine: str) -> dict[str, str]:
        roots = ("/etc/", "/var/", "/run/", "/tmp/inventory")
        # Not within another path: the folder of a machine has such names in it.
        return {f"{before}{root}": f"{before}{self.folder / machine}{root}" for root in roots for before in " \"':="}

    def _folder(self, machine: str) -> Path:
        folder = self.folder / machine
        if not (folder / "deploy").exists():
            (folder / "etc/systemd/system").mkdir(parents=True)
            for file in sorted((ROOT / "deploy").rglob("*.*")):
                copy = folder / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(self.rewritten(machine, file.read_text("utf-8")))
        return folder

    def _environment(self, machine: str) -> dict[str, str]:
        """Root's defaults on that machine."""
        run = self.folder / machine / "run/livery"
        return {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.folder / machine),
            "LANG": "C.UTF-8",
            "MACHINES": str(self.folder),
            "LIVERY_CA_SOCKET": f"unix:{run}/ca/admin.sock",
            "LIVERY_AGENT_SOCKET": f"unix:{run}/agent/admin.sock",
            "LIVERY_POLICY_SOCKET": f"unix:{run}/policy/api.sock",
            "SPIFFE_ENDPOINT_SOCKET": f"unix:{run}/agent/workload.sock",
        }

    def _systemctl(self, machine: str, verb: str, *rest: str) -> None:
        if verb == "daemon-reload":
            return
        name = rest[-1]
        if verb in {"stop", "restart"}:
            self.running.pop((machine, name)).stop()
        if verb in {"start", "restart", "enable"}:
            self.running[machine, name] = Service(self.folder / machine, name).start()

    def told(self) -> str:
        """The ends of all journals, for a test that fails."""
        return "\n".join(f"--- {key}\n{tail(service.journal)}" for key, service in self.running.items())

    def stop(self) -> None:
        """Stop whatever still runs, the last first."""
        with ExitStack() as last:  # each, whatever befalls another
            for service in self.running.values():
                if service.process.poll() is None:
                    last.callback(service.stop)


@dataclass
class Service:
    """One unit, run as its file says: `ExecStart`, the directories it asks for, and Type=notify."""

    machine: Path
    name: str

    @property
    def journal(self) -> Path:
        return self.machine / f"{self.name}.log"

    def start(self) -> Service:
        """Start it and wait until it has said that it is ready."""
        unit = (self.machine / f"etc/systemd/system/{self.name}.service").read_text("utf-8")
        for name in _settings(unit, "StateDirectory"):
            (self.machine / "var/lib" / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _settings(unit, "RuntimeDirectory"):
            shutil.rmtree(self.machine / "run" / name, ignore_errors=True)
            (self.machine / "run" / name).mkdir(mode=0o711, parents=True)
        program, *arguments = _settings(unit, "ExecStart")
        assert program == "/opt/livery/bin/livery"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self.journal.open("ab") as journal:
            address = self.machine / f"{self.name}.notify"
            address.unlink(missing_ok=True)
            notified.bind(str(address))
            notified.settimeout(READY_WITHIN)
            self.process = subprocess.Popen(
                [*_confined(unit), sys.executable, "-m", "livery_cli", *arguments],
                cwd="/",
                umask=int(_settings(unit, "UMask")[0], 8),
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "NOTIFY_SOCKET": str(address)},
                stdin=subprocess.DEVNULL,
                stdout=journal,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                assert notified.recv(4096) == b"READY=1"
            except TimeoutError:
                self.process.kill()
                raise AssertionError(f"{self.name} is not ready: {tail(self.journal)}") from None
        return self

    def stop(self) -> None:
        """SIGTERM; it has to end well, within the unit's time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(timeout=20) == 0, tail(self.journal)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def told(self) -> str:
        return self.journal.read_text("utf-8", "replace")


def _confined(unit: str) -> list[str]:
    """What of the unit's confinement every user can put on a process (prctl(2)); an old kernel lacks some of it."""
    assert "MemoryDenyWriteExecute=yes\n" in unit
    assert "NoNewPrivileges=yes\n" in unit
    no_new_privileges, write_xor_execute = 38, 65
    calls = "".join(f"prctl({option}, 1, 0, 0, 0);" for option in (no_new_privileges, write_xor_execute))
    text = f"import ctypes, os, sys; prctl = ctypes.CDLL(None).prctl; {calls} os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", text]


def _settings(unit: str, name: str) -> list[str]:
    found = re.search(rf"^{name}=(.*)$", unit, re.MULTILINE)
    return found[1].split() if found else []
