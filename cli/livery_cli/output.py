"""How answers are printed: a table for people, JSON for programs, names for shells.

Owns: the three forms and how times are said. Does not own: what the columns are; a noun module passes rows. JSON is a
list of objects (or one object) with stable keys and RFC 3339 times; the table is for eyes and may change.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class View:
    """How one noun is shown: its columns (key → heading) and the key that names it."""

    columns: Mapping[str, str]
    name: str


def show(rows: Sequence[Row], view: View, output: str) -> None:
    """Print several things."""
    if output == "json":
        click.echo(json.dumps(list(rows), indent=2, default=_plain))
    elif output == "name":
        for row in rows:
            click.echo(str(row[view.name]))
    else:
        _table(rows, view)


def show_one(row: Row, view: View, output: str) -> None:
    """Print one thing: every key it has, not only the table's columns."""
    if output == "json":
        click.echo(json.dumps(row, indent=2, default=_plain))
    elif output == "name":
        click.echo(str(row[view.name]))
    else:
        width = max((len(key) for key in row), default=0)
        for key, value in row.items():
            click.echo(f"{key:<{width}}  {cell(value)}")


def watch(render: Callable[[], None], every: timedelta | None) -> None:
    """Render once, or again and again until interrupted."""
    render()
    while every is not None:
        time.sleep(every.total_seconds())
        click.echo()
        render()


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
    return str(value)


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


def _table(rows: Sequence[Row], view: View) -> None:
    if not rows:
        click.echo("nothing to show", err=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, heading in view.columns.items():
        table.add_column(heading, overflow="fold", no_wrap=key == view.name and sys.stdout.isatty())
    for row in rows:
        table.add_row(*(cell(row.get(key)) for key in view.columns))
    # Into a pipe, columns are never folded: what follows reads lines.
    Console(width=None if sys.stdout.isatty() else 4096, soft_wrap=not sys.stdout.isatty()).print(table)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
