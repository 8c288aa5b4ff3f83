"""Running a role inside the `livery` command: `ca run`, `agent run`, `policy run`, and the demo services of `up`.

Owns: what is the same for all of them: reading the configuration, saying that it is ready or why it cannot be, and the
exit code. Does not own: the event loop, signals and the leash (`livery.runtime.lifecycle`), or what a role does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from livery.errors import LiveryError
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.config import Section, effective, load
from livery.runtime.lifecycle import notify, run_role
from livery_cli.exits import Exit, exit_code, tell
from livery_cli.terminal.output import Shown

M = TypeVar("M", bound=Section)

Work = Coroutine[object, object, None]
OnReady = Callable[[Mapping[str, object]], None]
# A role's own `main.run`: runs until it is cancelled, and says once that it serves.
Run = Callable[[M, Clock, OnReady], Work]


def read_config(model: type[M], role: str, config_file: Path | None) -> M:
    """The role's configuration from the file and the environment; raises `ConfigError`."""
    return load(model, role, config_file, os.environ)


def check_config(model: type[Section], role: str, config_file: Path | None, output: str) -> int:
    """Print each value in force with the place it came from; raises `ConfigError` with all that is wrong."""
    settings = effective(model, role, config_file, os.environ)
    lines = [f"{setting.name} = {setting.value}  # {setting.source}" for setting in settings]
    names = [setting.name for setting in settings]
    Shown([asdict(setting) for setting in settings], names, lambda: "\n".join(lines)).show(output)
    return Exit.DONE


def run_configured(role: str, model: type[M], run: Run[M], config_file: Path | None, ready_fd: int | None) -> int:
    """Run a role with its configuration until it is told to stop; its exit code."""
    return serve(lambda on_ready: run(read_config(model, role, config_file), SystemClock(), on_ready), ready_fd)


def serve(work: Callable[[OnReady], Work], ready_fd: int | None) -> int:
    """Run until told to stop; an error at the start is told to whoever waits for `ready`. The exit code."""
    announcement = Announcement(ready_fd)
    # Who waits for the word that we are ready also holds our standard input, as a leash.
    leash = None if ready_fd is None else sys.stdin.fileno()
    try:
        run_role(work(announcement.ready), leash=leash)
    except LiveryError as error:
        announcement.failed(error)
        tell(error)
        return exit_code(error)
    finally:
        announcement.close()
    return Exit.DONE


class Announcement:
    """One line of JSON on a pipe of the parent's; for systemd its own word; for a person a line of text."""

    def __init__(self, descriptor: int | None) -> None:
        self._for_people = descriptor is None
        self._pipe = None if descriptor is None else os.fdopen(descriptor, "w", encoding="utf-8")

    def ready(self, fields: Mapping[str, object]) -> None:
        """Say that the role serves, and where."""
        notify("READY=1", os.environ)
        self._say(fields)
        if self._for_people:
            print("ready:", *(f"{key}={value}" for key, value in fields.items()), file=sys.stderr, flush=True)

    def failed(self, error: LiveryError) -> None:
        """Say why it does not serve; of no effect once it did."""
        self._say({"error": {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}})

    def _say(self, fields: Mapping[str, object]) -> None:
        if self._pipe is not None:
            with suppress(BrokenPipeError):  # nobody waits any more; our leash says the rest
                print(json.dumps(fields, default=str), file=self._pipe, flush=True)
            self.close()

    def close(self) -> None:
        """The end of the line for whoever reads."""
        if self._pipe is not None:
            with suppress(BrokenPipeError):  # what nobody took
                self._pipe.close()
            self._pipe = None
