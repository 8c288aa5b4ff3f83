"""One process of `livery up`: started, watched, restarted, and stopped with its parent.

Owns: the life of a child. The child's standard input is its leash: it ends when that closes, so that nothing outlives
`livery up`, not even after kill -9. The child says that it is ready, or why it cannot be, in one line of JSON on a
pipe. Does not own: what the children are, or in which order they start (`supervisor`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from livery.errors import Kind, LiveryError
from livery.runtime.clock import Clock

_READY_WITHIN = 60.0  # seconds
_LAST_WORDS = 2.0  # seconds for what a child still has to say: before SIGKILL, and of its output after its end
_GRACE = 8.0  # seconds between SIGTERM and SIGKILL
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds before a restart
_STEADY_AFTER = 10.0  # seconds of life after which the pause starts anew

Ready = Mapping[str, object]


class RoleFailed(LiveryError):
    """A role could not start."""

    code: ClassVar[str] = "role_failed"
    kind: ClassVar[Kind] = Kind.PRECONDITION


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started. `argv` is asked at each start, since a restart may need other arguments."""

    name: str
    argv: Callable[[], list[str]]
    log: Path
    uid: int
    environment: Mapping[str, str] = field(default_factory=dict)
    on_line: Callable[[str], None] | None = None  # takes each line of standard output; else it goes to the log


@dataclass(slots=True)
class Watcher:
    """What a process tells its supervisor."""

    died: Callable[[str, str], None]
    back: Callable[[str, Ready], None]


class Process:
    """A supervised child process."""

    def __init__(self, command: Command, watcher: Watcher, clock: Clock) -> None:
        self.command = command
        self.restarts = 0
        self._watcher = watcher
        self._clock = clock
        self._child: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._lines: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        """The child's PID; 0 while there is none."""
        return self._child.pid if self._child and self._child.returncode is None else 0

    async def start(self) -> Ready:
        """Start it for the first time and wait until it is ready; raises `RoleFailed` with its own reason."""
        ready = await self._spawn()
        self._task = asyncio.create_task(self._keep_alive(), name=f"keep {self.command.name}")
        return ready

    def expect_end(self) -> None:
        """From now on its end is no news, and it is not started again."""
        self._stopping = True

    async def stop(self) -> None:
        """SIGTERM, a grace, SIGKILL; returns when the child is gone and its last line taken."""
        self.expect_end()
        child = self._child
        if child is not None and child.returncode is None:
            child.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(child.wait(), _GRACE)
            except TimeoutError:
                child.kill()
                await child.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._lines is not None:  # a child's end is heard of before the end of its output
            await asyncio.wait({self._lines}, timeout=_LAST_WORDS)
            self._lines.cancel()

    async def _keep_alive(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping:
            assert self._child is not None
            born = self._clock.monotonic()
            code = await self._child.wait()
            if self._stopping:
                return
            self._watcher.died(self.command.name, _ending(code))
            if self._clock.monotonic() - born > _STEADY_AFTER:
                pause = _FIRST_PAUSE
            pause = await self._revive(pause)

    async def _revive(self, pause: float) -> float:
        """Start it again until it is ready; returns the pause to take next time."""
        while not self._stopping:
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                ready = await self._spawn()
            except LiveryError as error:  # or what it needs could not be written: it is tried again all the same
                self._watcher.died(self.command.name, str(error))
                continue
            self.restarts += 1
            self._watcher.back(self.command.name, ready)
            break
        return pause

    async def _spawn(self) -> Ready:
        reader, writer = os.pipe()
        try:
            with self.command.log.open("ab") as log:
                self._child = await self._execute(writer, log.fileno())
        except OSError as error:
            os.close(reader)
            fix = f"see that {self.command.log} can be written, and that this machine can run another process"
            raise RoleFailed(f"{self.command.name} did not start", why=str(error), fix=fix) from error
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        if self.command.on_line and self._child.stdout:
            self._lines = asyncio.create_task(_forward(self._child.stdout, self.command.on_line))
        return await self._await_ready(reader)

    async def _execute(self, ready_fd: int, log_fd: int) -> asyncio.subprocess.Process:
        same_user = self.command.uid == os.geteuid()
        return await asyncio.create_subprocess_exec(
            *self.command.argv(),
            "--ready-fd",
            str(ready_fd),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if self.command.on_line else log_fd,
            stderr=log_fd,
            pass_fds=(ready_fd,),
            env={**os.environ, **self.command.environment},
            start_new_session=True,  # Ctrl-C reaches `livery up` alone, which stops them in order
            user=None if same_user else self.command.uid,
            group=None if same_user else self.command.uid,
            extra_groups=None if same_user else [],
        )

    async def _await_ready(self, reader: int) -> Ready:
        """The child's one line; raises `RoleFailed` if it says no, says nothing in time, or ends first."""
        name = self.command.name
        try:
            async with asyncio.timeout(_READY_WITHIN):  # not wait_for, which may lose a cancellation until Python 3.12
                said = json.loads(await _line(reader) or b"{}")
        except TimeoutError:
            said = {"error": {"what": f"it was not ready within {_READY_WITHIN:.0f} s"}}
        if "error" not in said and said:
            return dict(said)
        assert self._child is not None
        code = await self._ended(self._child)
        error = said.get("error") or {"what": _ending(code)}
        why = f"{error['what']}: {error['why']}" if error.get("why") else str(error["what"])
        raise RoleFailed(f"{name} did not start", why=why, fix=error.get("fix") or f"read {self.command.log}")

    async def _ended(self, child: asyncio.subprocess.Process) -> int:
        """The exit code of a child that will not be ready; it has a moment to log its last words."""
        try:
            return await asyncio.wait_for(child.wait(), _LAST_WORDS)
        except TimeoutError:
            child.kill()
            return await child.wait()


async def _line(descriptor: int) -> bytes:
    """The first line from a pipe, or what came before it closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor))
    try:
        return await reader.readline()
    finally:
        transport.close()


async def _forward(stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
    while line := await stream.readline():
        take(line.decode("utf-8", "replace").rstrip("\n"))


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    return f"it was ended by {signal.Signals(-code).name}"
