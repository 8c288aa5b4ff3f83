"""How answers are printed: a table for people, JSON for programs, names for shells.

Owns: the three forms and how times are said. Does not own: what the columns are; a noun module passes rows. JSON is a
list of objects (or one object) with stable keys and RFC 3339 times; the table is for eyes and may change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from livery_cli.exits import Exit
from livery_cli.plain_text import one_line, plain

Row = Mapping[str, object]

_PIPE_WIDTH = 4096
_LEAST_COLUMN = 20  # characters: an address or a time is still read in two lines


@dataclass(frozen=True, slots=True)
class View:
    """How one noun is shown: its columns (key → heading) and the key that names it."""

    columns: Mapping[str, str]
    name: str


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer that can be printed in each form, and the exit code that goes with it.

    `steady` is what makes it differ from another answer, where its texts differ with every look (they count seconds).
    """

    document: object
    names: Sequence[str]
    people: Callable[[], str]
    code: int = Exit.DONE
    steady: object = None

    def text(self, output: str, *, indent: int | None = 2) -> str:
        """What is printed, without the last line's end; empty when there is nothing."""
        if output == "json":
            return json.dumps(self.document, indent=indent, default=_plain)
        return "\n".join(self.names) if output == "name" else self.people()

    def mark(self, output: str) -> str:
        """Two answers of one mark are the same to whoever looks."""
        if self.steady is None or output == "name":
            return self.text(output)
        return json.dumps(self.steady, default=_plain)

    def show(self, output: str) -> None:
        """Print it."""
        text = self.text(output)
        if text:
            click.echo(text)
        elif output == "table":
            click.echo("nothing to show", err=True)


def several(rows: Sequence[Row], view: View) -> Shown:
    """Several things, of any number."""
    return Shown(list(rows), [str(row[view.name]) for row in rows], lambda: _table(rows, view))


def one(row: Row, view: View, code: int = Exit.DONE) -> Shown:
    """One thing: every key it has, not only the table's columns."""
    return Shown(row, [str(row.get(view.name))], lambda: _pairs(row), code)


def show(rows: Sequence[Row], view: View, output: str) -> None:
    """Print several things."""
    several(rows, view).show(output)


def show_one(row: Row, view: View, output: str) -> None:
    """Print one thing."""
    one(row, view).show(output)


def show_done(done: str, ids: Sequence[str], output: str) -> None:
    """Print what was done to each of these: a sentence for people, `id` and `done` for programs."""
    if ids or output == "json":
        rows = [{"id": each, "done": done} for each in ids]
        Shown(rows, ids, lambda: "\n".join(f"{done} {one_line(each)}" for each in ids)).show(output)


def cell(value: object) -> str:
    """A value as a person reads it."""
    if value is None or value in ("", (), []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    return plain(str(value))


def duration(value: timedelta) -> str:
    """A duration in its two largest units, such as `1h5m`."""
    seconds = int(value.total_seconds())
    if seconds < 0:
        return f"-{duration(-value)}"
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    shown = [f"{number}{unit}" for number, unit in parts if number][:2]
    return "".join(shown) or "0s"


def at(seconds: int) -> datetime | None:
    """A wire time (Unix seconds, 0 = none) as an aware UTC time."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _pairs(row: Row) -> str:
    width = max((len(key) for key in row), default=0)
    return "\n".join(f"{key:<{width}}  {cell(value)}" for key, value in row.items())


def _table(rows: Sequence[Row], view: View) -> str:
    """Rows as lines; on a terminal too narrow for that, each row as a block of its own."""
    if not rows:
        return ""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    at_terminal = sys.stdout.isatty()
    # Into a pipe, columns are never folded: what follows reads lines.
    console = Console(width=None if at_terminal else _PIPE_WIDTH, soft_wrap=not at_terminal)
    cells = [{key: one_line(cell(row.get(key))) for key in view.columns} for row in rows]
    if at_terminal and console.width < _least_width(cells, view):
        return "\n\n".join(_pairs({heading: row[key] for key, heading in view.columns.items()}) for row in cells)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, heading in view.columns.items():
        table.add_column(heading, overflow="fold", no_wrap=key == view.name and at_terminal)
    for row in cells:
        table.add_row(*map(Text, row.values()))  # as they are: a text in brackets is no style, ":key:" no picture
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _least_width(cells: Sequence[Mapping[str, str]], view: View) -> int:
    """How wide a table must be to be read: names whole, the rest folded to no less than `_LEAST_COLUMN`."""
    widths = {key: max(len(heading), *(len(row[key]) for row in cells)) for key, heading in view.columns.items()}
    return sum(width if key == view.name else min(width, _LEAST_COLUMN) for key, width in widths.items()) + len(widths)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        return int(seconds) if seconds.is_integer() else seconds
    return str(value)
