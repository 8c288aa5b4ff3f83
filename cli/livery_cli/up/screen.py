"""`livery up` as a person sees it: a live table at a terminal, plain lines elsewhere, JSON for programs.

Owns: the three ways of showing one stream of events. Does not own: the facts (`board`, `events`).
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from livery_cli.terminal.output import duration
from livery_cli.up.board import Board
from livery_cli.up.events import Event

_RECENT = 3  # events shown at once
_PLAIN_EVERY = timedelta(seconds=5)  # between progress lines of plain output


class Screen(Protocol):
    """Something that shows a run."""

    def progress(self, what: str) -> None:
        """Tell whoever waits what is being done, before there is anything to show and when it ends."""
        ...

    def show(self, event: Event) -> None:
        """Show that something happened."""
        ...

    def tick(self, now: datetime) -> None:
        """Called a few times a second: redraw what changes with time."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found."""
        ...


class JsonScreen:
    """Every event, one line of JSON each."""

    def progress(self, what: str) -> None:
        """A program that waits, waits for `ready`."""

    def show(self, event: Event) -> None:
        """Print the event."""
        print(event.line(), flush=True)

    def tick(self, now: datetime) -> None:
        """Nothing changes with time."""

    def close(self) -> None:
        """Nothing to leave."""


class PlainScreen:
    """A line for each event that says something new, and a line of progress now and then."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._told: set[tuple[object, ...]] = set()
        self._last: datetime | None = None

    def progress(self, what: str) -> None:
        """Print it."""
        print(what, flush=True)

    def show(self, event: Event) -> None:
        """Print the event; of equal calls only the first, since they are counted in the progress line."""
        if event.name == "ready":
            print(welcome(event.fields), flush=True)
            return
        if event.name == "call":
            key = tuple(event.fields[name] for name in ("from", "to", "method", "outcome", "reason"))
            if key in self._told and event.fields["outcome"] != "failed":
                return
            self._told.add(key)
        print(event.sentence(), flush=True)

    def tick(self, now: datetime) -> None:
        """Print a line of progress every few seconds."""
        # A clock that was set back must not silence it.
        if self._last is not None and abs(now - self._last) < _PLAIN_EVERY:
            return
        first = self._last is None
        self._last = now
        if not first and self._board.outcomes:
            counts = self._board.summary()
            told = ("rotations", "allowed", "denied", "failures", "p50_ms", "p99_ms")
            print(f"{now:%H:%M:%S} so far    " + "  ".join(f"{name} {counts[name]}" for name in told), flush=True)

    def close(self) -> None:
        """Nothing to leave."""


class LiveScreen:
    """The first screen, and below it a table that is redrawn in place: small enough for 80 columns and 24 lines."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._live = Live(console=Console(), auto_refresh=False, transient=False)
        self._started = False

    def progress(self, what: str) -> None:
        """Print it, below the last picture if there is one."""
        self._stop()
        print(what, flush=True)

    def show(self, event: Event) -> None:
        """Take the event in; the next tick draws it."""
        if event.name == "ready":
            # Not by rich, which would break long lines for good: these are for pasting.
            print(welcome(event.fields), flush=True)
            print()
            self._live.start()
            self._started = True
        elif event.name == "stopped":
            self._stop()
            print(event.sentence())

    def tick(self, now: datetime) -> None:
        """Draw the whole picture."""
        if self._started:
            self._live.update(self._picture(now), refresh=True)

    def close(self) -> None:
        """Leave the last picture standing."""
        self._stop()

    def _stop(self) -> None:
        if self._started:
            self._live.stop()
            self._started = False

    def _picture(self, now: datetime) -> Group:
        parts: list[Table | Text] = [self._identities(now)]
        if self._board.by_call:
            parts += [Text(), self._calls()]
        if self._board.denied_because:
            parts.append(Text(f"denied {self._board.denied_because}", style="yellow"))
        parts.append(Text())
        parts += [Text(f"{name}: {why}", style="bold red") for name, why in self._board.troubles.items()]
        parts += [
            Text(event.sentence(), style="dim", no_wrap=True, overflow="ellipsis")
            for event in list(self._board.recent)[-_RECENT:]
        ]
        parts.append(Text("Ctrl-C stops everything.", style="dim"))
        return Group(*parts)

    def _identities(self, now: datetime) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("IDENTITY", overflow="fold")
        for heading in ("SERIAL", "ENDS IN", "RENEWS IN", "ROTATED"):
            table.add_column(heading, no_wrap=True)
        for name, held in sorted(self._board.identities.items()):
            renews = duration(max(held.renew_at - now, now - now)) if held.renew_at else "-"
            rotations = str(self._board.rotations[name])
            table.add_row(held.spiffe_id, held.serial[:8] + "…", duration(held.expires_at - now), renews, rotations)
        return table

    def _calls(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("CALL", "OUTCOME", "COUNT"):
            table.add_column(heading)
        styles = {"allowed": "green", "denied": "yellow", "failed": "bold red"}
        for (source, target, what, outcome), count in sorted(self._board.by_call.items()):
            table.add_row(f"{source} -> {target}  {what}", Text(outcome, style=styles.get(outcome, "")), str(count))
        counts = self._board.summary()
        table.add_row("", "p50 / p99", f"{counts['p50_ms']} / {counts['p99_ms']} ms")
        return table


def welcome(ready: Mapping[str, object]) -> str:
    """The first screen: what runs where, and three commands worth trying next."""
    lines = [
        f"livery is up: trust domain {ready['trust_domain']}, state in {ready['state']}",
        f"  CA             {ready['ca_address']}",
        f"  Workload API   {ready['spiffe_endpoint_socket']}",
        f"  policy         {ready['policy_socket']}",
        f"                 https://{ready['policy_address']}",
    ]
    services = ready.get("services")
    if isinstance(services, dict):
        lines += [f"  {name:<14} {about['url']}  {about['id']}" for name, about in services.items()]
    lines += ["", "Try next:", *(f"  {command}" for command in next_commands(ready))]
    return "\n".join(lines)


def next_commands(ready: Mapping[str, object]) -> list[str]:
    """Three commands, ready to paste."""
    orders, inventory = (f"spiffe://{ready['trust_domain']}/{name}" for name in ("orders", "inventory"))
    command = program(sys.argv[0])
    return [
        f"{command} inspect --agent-socket {shlex.quote(str(ready['agent_socket']))}",
        f"{command} entry list --ca-socket {shlex.quote(str(ready['ca_socket']))}",
        f"{command} can {orders} http:DELETE {inventory} --policy-socket {shlex.quote(str(ready['policy_socket']))}",
    ]


def program(called_as: str) -> str:
    """What to type to run this program, which was called as `called_as`, again: its name, if PATH leads to it."""
    if Path(called_as).name != "livery":
        return f"{shlex.quote(sys.executable)} -m livery_cli"
    found = shutil.which("livery")
    if found is not None and Path(found).resolve() == Path(called_as).resolve():
        return "livery"
    return shlex.quote(called_as)


def screen(output: str, board: Board) -> Screen:
    """The screen for `--output`: `json`, or a live table where there is a terminal, or plain lines."""
    if output == "json":
        return JsonScreen()
    return LiveScreen(board) if sys.stdout.isatty() else PlainScreen(board)


Show = Callable[[Event], None]
