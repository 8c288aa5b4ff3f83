"""Running a role inside the `livery` command: `ca run`, `agent run`, `policy run`, and the demo services of `up`.

Owns: what is the same for all of them: configuration, log, event loop, signals, saying that it is ready or why it
cannot be, and the leash by which `livery up` holds its children. Does not own: what a role does; each has a `run`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

import click
import uvloop

from livery.errors import LiveryError
from livery.runtime.config import Section, effective, load
from livery_cli.exits import Exit, exit_code, tell
from livery_cli.options import config_option

Ready = Mapping[str, object]
OnReady = Callable[[Ready], None]
Serve = Callable[[OnReady], Coroutine[object, object, None]]
F = TypeVar("F", bound=Callable[..., object])
M = TypeVar("M", bound=Section)


def run_options(command: F) -> F:
    """The options of every `run`."""
    leash = click.option("--ready-fd", type=int, hidden=True, help="Used by livery up: where to say that it is ready.")
    return config_option(leash(command))


def read_config(model: type[M], role: str, config_file: Path | None) -> M:
    """The role's configuration from the file and the environment; raises `ConfigError`."""
    return load(model, role, config_file, os.environ)


def check_config(model: type[Section], role: str, config_file: Path | None) -> int:
    """`livery <role> config check`: each value in force with the place it came from; exit 2 with all that is wrong."""
    for setting in effective(model, role, config_file, os.environ):
        click.echo(f"{setting.name} = {setting.value}  # {setting.source}")
    return Exit.DONE


def serve(serve_role: Serve, ready_fd: int | None) -> int:
    """Run a role until SIGINT or SIGTERM; an error at the start is told to whoever waits for it to be ready."""
    announcement = Announcement(ready_fd)
    try:
        uvloop.run(_until_signal(serve_role(announcement.ready), leashed=ready_fd is not None))
    except LiveryError as error:
        announcement.failed(error)
        tell(error)
        return exit_code(error)
    finally:
        announcement.close()
    return Exit.DONE


class Announcement:
    """One line of JSON on a descriptor of the parent's, or a line of text for a person."""

    def __init__(self, descriptor: int | None) -> None:
        self._pipe = None if descriptor is None else os.fdopen(descriptor, "w", encoding="utf-8")

    def ready(self, fields: Ready) -> None:
        """Say that the role serves, and where."""
        if self._pipe is None:
            places = "  ".join(f"{key}={value}" for key, value in fields.items())
            print(f"ready  {places}", file=sys.stderr, flush=True)
        else:
            self._say(fields)

    def failed(self, error: LiveryError) -> None:
        """Say why it does not serve; of no effect once it did."""
        self._say({"error": {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}})

    def _say(self, fields: Mapping[str, object]) -> None:
        if self._pipe is not None:
            print(json.dumps(fields, default=str), file=self._pipe, flush=True)
            self.close()

    def close(self) -> None:
        """The end of the line for whoever reads."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


async def _until_signal(work: Coroutine[object, object, None], *, leashed: bool) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    if leashed:
        threading.Thread(target=_hold_leash, args=(loop, task), daemon=True, name="leash").start()
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


def _hold_leash(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Stop when standard input ends: it is held by `livery up`, so it ends even if that was killed."""
    while os.read(sys.stdin.fileno(), 64):
        pass
    loop.call_soon_threadsafe(task.cancel)
