"""A running `livery up`, driven as a script would drive it: by its JSON events and its exit code.

Owns: starting it, reading its events, waiting for one, stopping it by pid. Nothing here sleeps: every wait is for an
event, a line or an exit, with a limit after which the test fails with all that was said so far.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]
LIVERY = [sys.executable, "-m", "livery_cli"]


def livery(*arguments: str, timeout: float = 60, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, as a shell would."""
    return subprocess.run([*LIVERY, *arguments], capture_output=True, text=True, timeout=timeout, check=False, **more)


@dataclass
class Up:
    """One `livery up --output json`."""

    state: Path
    arguments: Sequence[str] = ()
    events: list[Event] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)

    def start(self) -> Up:
        """Start it and wait until it is ready."""
        self.process = subprocess.Popen(
            [*LIVERY, "up", "--state", str(self.state), "--output", "json", *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.ready = self.wait_for(lambda event: event["event"] == "ready", 90)
        return self

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.stderr.extend(self.process.stderr)

    def wait_for(self, wanted: Callable[[Event], bool], seconds: float) -> Event:
        """The next event that is wanted; fails with what was said if it does not come in time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                event = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if event is None:
                raise AssertionError(f"livery up ended first: {self.told()}")
            self.events.append(event)
            if wanted(event):
                return event
        raise AssertionError(f"not within {seconds} s: {self.told()}")

    def catch_up(self) -> None:
        """Take in what was said until now, so that the next wait is for something new."""
        while not self._queue.empty():
            event = self._queue.get()
            if event is None:
                self._queue.put(None)  # the end is for whoever waits next
                return
            self.events.append(event)

    def wait_for_calls(self, outcome: str, count: int, seconds: float = 30) -> None:
        """Wait until `count` more calls came out so; none of any kind may fail meanwhile."""
        seen = 0

        def enough(event: Event) -> bool:
            nonlocal seen
            if event["event"] != "call":
                return False
            assert event["outcome"] != "failed", event
            seen += event["outcome"] == outcome
            return seen >= count

        self.wait_for(enough, seconds)

    def wait_for_end(self, seconds: float) -> int:
        """Wait until it has ended by itself; its exit code."""
        code = self.process.wait(timeout=seconds)
        self._drain()
        return code

    def stop(self) -> int:
        """Ctrl-C, and wait until it has ended; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.wait_for_end(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _drain(self) -> None:
        for reader in self._readers:
            reader.join(timeout=10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        while not self._queue.empty():
            event = self._queue.get()
            if event is not None:
                self.events.append(event)

    def of(self, name: str) -> list[Event]:
        """All events of one name so far."""
        return [event for event in self.events if event["event"] == name]

    def told(self) -> str:
        """What was said so far, for a failing test: all but the calls, and what went to standard error."""
        self._drain_errors()
        lines = [json.dumps(event) for event in self.events if event["event"] != "call"]
        failed = [json.dumps(event) for event in self.of("call") if event["outcome"] == "failed"]
        logs = [f"--- {log.name}\n{tail(log)}" for log in sorted((self.state / "logs").glob("*.log"))]
        return "\n".join([*lines[-20:], *failed[-10:], *self.stderr[-20:], *logs])

    def _drain_errors(self) -> None:
        if self.process.poll() is not None:
            self._readers[1].join(timeout=5)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a user's shell would find this run."""
        names = {
            "LIVERY_CA_SOCKET": "ca_socket",
            "SPIFFE_ENDPOINT_SOCKET": "spiffe_endpoint_socket",
            "LIVERY_AGENT_SOCKET": "agent_socket",
            "LIVERY_POLICY_SOCKET": "policy_socket",
        }
        return {**os.environ, **{variable: str(self.ready[key]) for variable, key in names.items()}}

    def livery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command against this run."""
        return livery(*arguments, env=self.environment)

    def livery_with(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that reads this text."""
        return livery(*arguments, env=self.environment, input=text)


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log."""
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])


def alive(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll a condition of the outside world that nobody announces; fails after `seconds`."""
    end = time.monotonic() + seconds
    ticker = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        ticker.wait(0.05)
