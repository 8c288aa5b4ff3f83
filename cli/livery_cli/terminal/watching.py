"""`--watch` of every command that shows something: shows it again whenever it has changed, until it is interrupted.

Owns: its two options, the loop, and where each answer goes: redrawn on a terminal, printed again anywhere else. Does
not own: what is shown; a command returns that as `Shown`, and is called again for the next look.

Invariants: the same answer is not printed twice, and of different ones none is left out; that the other side is away is
said once, and so is its return.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import wraps
from typing import Any, NoReturn

import click

from livery.errors import Kind, LiveryError
from livery_cli.plain_text import one_line
from livery_cli.terminal.interrupts import pause
from livery_cli.terminal.options import DURATION
from livery_cli.terminal.output import Shown

Present = Callable[[Shown], None]

_AWAY = frozenset({Kind.UNAVAILABLE, Kind.INTERNAL})  # what the other side may recover from by itself


def watchable(command: Callable[..., Shown]) -> Callable[..., int]:
    """Print what the command returns, and add `--watch` and `--interval`; the lowest of its decorators."""

    @click.option("--watch/--no-watch", default=False, help="Show it again whenever it has changed, until Ctrl-C.")
    @click.option(
        "--interval", type=DURATION, default="2s", show_default=True, help="How often --watch looks for a change."
    )
    @wraps(command)
    def run(*, watch: bool, interval: timedelta, output: str = "text", **fields: Any) -> int:
        if watch:
            with _presenting(output) as present:
                follow(lambda: command(**fields), present, interval)
        shown = command(**fields)
        shown.show(output)
        return shown.code

    return run


def follow(
    look: Callable[[], Shown], present: Present, interval: timedelta, *, sleep: Callable[[float], None] = pause
) -> NoReturn:
    """Present each look until interrupted. Raises what the first look raises, and later what no waiting can mend."""
    present(look())
    away = False
    while True:
        sleep(interval.total_seconds())
        try:
            shown = look()
        except LiveryError as error:
            if error.kind not in _AWAY:
                raise
            if not away:
                _say(f"away: {one_line(str(error))}")
            away = True
            continue
        if away:
            _say("back")
            away = False
        present(shown)


def _say(text: str) -> None:
    """Tell standard error as it is now: `click.echo` would write past a table that is drawn on the same terminal."""
    print(text, file=sys.stderr, flush=True)


def printing(output: str) -> Present:
    """Print an answer that differs from the one before: JSON one document a line, the rest with a line between."""
    last: str | None = None

    def present(shown: Shown) -> None:
        nonlocal last
        mark = shown.mark(output)
        if mark == last:
            return
        if output == "json":
            click.echo(shown.text(output, indent=None))
        else:
            if last is not None and shown.text(output):
                click.echo()
            shown.show(output)
        last = mark

    return present


def _presenting(output: str) -> AbstractContextManager[Present]:
    return nullcontext(printing(output)) if output != "table" or not sys.stdout.isatty() else _Redrawn()


class _Redrawn(AbstractContextManager[Present]):
    """The table, drawn over itself. What goes to standard error appears above it, if that is this terminal."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False, redirect_stderr=sys.stderr.isatty())

    def __enter__(self) -> Present:
        self._live.start()
        return self._present

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _present(self, shown: Shown) -> None:
        from rich.text import Text

        self._live.update(Text.from_ansi(shown.text("table") or "nothing to show"), refresh=True)
