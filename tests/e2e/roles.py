"""One role as a process of its own: `livery ca run` and the like, with a configuration that the test writes.

Owns: starting it, the line by which it says that it is ready or why not, its exit code and its log, and stopping it by
pid. `Up` is for the whole system; this is for a role whose start is what the test is about.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livery_cli.terminal.toml_text import toml
from tests.e2e.running import LIVERY, livery, tail, wait_until
from tests.e2e.workloads import selectors_of

READY_WITHIN = 40.0  # seconds


@dataclass
class Role:
    """A role that was started."""

    name: str
    config: Path
    log: Path
    command: Sequence[str]
    ready: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] = field(default_factory=dict)
    log_by_pipe: bool = False  # its log passes through us, so that what befalls its files does not befall its log

    def start(self) -> Role:
        """Start it, and wait until it says that it is ready or ends; look at `ready` or `error`."""
        reader, writer = os.pipe()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--config", str(self.config), "--ready-fd", str(writer)],
                stdin=subprocess.PIPE,  # its leash: it ends when this closes
                stdout=subprocess.PIPE if self.log_by_pipe else log,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
                start_new_session=True,
            )
        if self.log_by_pipe:
            threading.Thread(target=self._copy_log, daemon=True).start()
        os.close(writer)
        said = self._read_line(reader)
        self.ready, self.error = ({}, said["error"]) if "error" in said else (said, {})
        return self

    def _copy_log(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("ab") as log, self.process.stdout as said:
            for line in said:
                log.write(line)
                log.flush()

    def _read_line(self, reader: int) -> dict[str, Any]:
        said, end = b"", time.monotonic() + READY_WITHIN
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            while not said.endswith(b"\n") and (left := end - time.monotonic()) > 0:
                if select.select([pipe], [], [], left)[0]:
                    more = pipe.read(65536)
                    if not more:
                        break
                    said += more
        return dict(json.loads(said)) if said else {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def up(self) -> Role:
        """Fail unless it is ready."""
        assert self.ready, f"{self.name} is not ready: {self.error or tail(self.log)}"
        return self

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait(timeout=10)
        self._let_go()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._let_go()
        return code

    def end(self) -> int:
        """The exit code of a role that ends by itself."""
        code = self.process.wait(timeout=20)
        self._let_go()
        return code

    def _let_go(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def told(self) -> str:
        """What it logged."""
        return self.log.read_text("utf-8", "replace")


class Home:
    """A directory with one configuration for all roles, and the roles started from it."""

    def __init__(self, directory: Path, **tables: Mapping[str, object]) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "livery.toml"
        self.tables: dict[str, dict[str, object]] = {name: dict(table) for name, table in tables.items()}
        self.started: list[Role] = []

    @property
    def ca_socket(self) -> Path:
        return self.directory / "ca.sock"

    @property
    def workload_socket(self) -> Path:
        return self.directory / "workload.sock"

    @property
    def agent_socket(self) -> Path:
        return self.directory / "agent.sock"

    def set(self, role: str, **fields: object) -> None:
        """Change the configuration of a role."""
        self.tables.setdefault(role, {}).update(fields)

    def write(self) -> Path:
        """Write the configuration."""
        self.config.write_text(toml(self.tables), "utf-8")
        return self.config

    def start(self, name: str, *command: str, log_by_pipe: bool = False) -> Role:
        """Start a role with the configuration as it is now; `command` instead of `livery <name> run`."""
        log = self.directory / f"{name}.log"
        role = Role(name, self.write(), log, command or (*LIVERY, name, "run"), log_by_pipe=log_by_pipe)
        self.started.append(role)
        return role.start()

    def start_skewed(self, name: str, seconds: float) -> Role:
        """Start a role on a machine whose clock is wrong by so many seconds."""
        return self.start(name, sys.executable, "-m", "tests.faults.skewed", name, str(seconds))

    def admin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the CA's administrator."""
        return livery(*arguments, env={**os.environ, "LIVERY_CA_SOCKET": f"unix:{self.ca_socket}"})

    def workload(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command as a workload of this home's agent."""
        return livery(*arguments, env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix:{self.workload_socket}"})

    def inspect(self) -> subprocess.CompletedProcess[str]:
        """What this home's agent says of itself."""
        return livery("inspect", "-o", "json", env={**os.environ, "LIVERY_AGENT_SOCKET": f"unix:{self.agent_socket}"})

    def stop(self) -> None:
        """Stop what still runs, the last first."""
        for role in reversed(self.started):
            if role.process.poll() is None:
                role.stop()


def ca_home(directory: Path, **fields: object) -> Home:
    """A home whose CA has its state there and takes a free port."""
    home = Home(directory)
    home.set(
        "ca",
        trust_domain="faults.test",
        state_dir=directory / "ca",
        listen_port=0,
        admin_socket=home.ca_socket,
        **fields,
    )
    return home


def join_by_token(home: Home, svid_ttl: str = "20s") -> Role:
    """An agent that joins the home's running CA by a new token, and an entry by which this program has an SVID."""
    ca = home.started[-1]
    token = json.loads(home.admin("token", "create", "-o", "json").stdout)["token"]
    kept = home.directory / "join.token"
    kept.write_text(token)
    kept.chmod(0o600)
    assert token not in ca.told()
    (home.directory / "bundle.pem").write_text(home.admin("bundle", "show", "--format", "pem").stdout)
    home.set(
        "agent",
        trust_domain="faults.test",
        ca_address=ca.ready["address"],
        trust_bundle_path=home.directory / "bundle.pem",
        state_dir=home.directory / "agent",
        workload_socket=home.workload_socket,
        admin_socket=home.agent_socket,
        sync_interval="1s",
        join_token={"path": str(kept)},
    )
    agent = home.start("agent").up()
    kept.unlink()  # spent: from now on it is a part of the agent's ID, and no secret
    parent = f"spiffe://faults.test/spire/agent/join_token/{token}"
    fields = ("--spiffe-id", "spiffe://faults.test/tester", "--parent-id", parent, "--x509-svid-ttl", svid_ttl)
    made = home.admin("entry", "create", *fields, *selectors_of())
    assert made.returncode == 0, made.stderr
    wait_until(lambda: home.workload("svid", "x509", "fetch").returncode == 0, 30, "the first SVID")
    return agent
