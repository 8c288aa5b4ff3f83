"""A click group that imports a command's module when the command is asked for, and not before.

Owns: laziness. `livery --help` shows each command's one line without importing it, so help and completion stay within
the start-up budget. Does not own: which commands there are; `main` and the noun modules say that.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command lives within this package (`module:attribute`) and its line in the help."""

    target: str
    help: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(f"livery_cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a click command")
        return command


class LazyGroup(click.Group):
    """A group of commands that are imported on use."""

    def __init__(self, *args: object, commands_of: Mapping[str, Lazy] | None = None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through unchanged
        self._lazy = dict(commands_of or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order they were given: the order of a user's day, not of the alphabet."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the named command."""
        lazy = self._lazy.get(cmd_name)
        return lazy.load() if lazy else super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none, suggest of those that are not loaded, too."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as missing:
            raise click.NoSuchCommand(missing.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list from the one-line helps, importing nothing."""
        rows = [(name, lazy.help) for name, lazy in self._lazy.items()]
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)
