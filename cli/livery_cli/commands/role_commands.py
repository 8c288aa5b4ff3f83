"""What the three role groups have in common: `run` and `config check`, without importing any role before its time.

Owns: those two commands. Does not own: the roles; each is named by its modules and loaded inside the command, since
`livery ca --help` must not load a database.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from livery_cli.terminal.options import config_option, output_option, ready_fd_option


@dataclass(frozen=True, slots=True)
class RoleModules:
    """A role by its modules: its name in the configuration and to people, its settings and its `run`."""

    name: str
    title: str
    config: str  # module:class
    main: str  # module:function

    def load(self, target: str) -> Any:
        """Import what `target` names."""
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)


def add_role_commands(group: click.Group, role: RoleModules) -> None:
    """Give a group its `run` and its `config check`."""

    @group.command(help=f"Run {role.title} until it is told to stop.")
    @config_option
    @ready_fd_option
    def run(config_file: Path | None, ready_fd: int | None) -> int:
        from livery_cli.role import run_configured

        return run_configured(role.name, role.load(role.config), role.load(role.main), config_file, ready_fd)

    @group.group(help=f"The configuration of {role.title}.")
    def config() -> None: ...

    @config.command(help="Check it, and show each value in force with the place it came from.")
    @config_option
    @output_option
    def check(config_file: Path | None, output: str) -> int:
        from livery_cli.role import check_config

        return check_config(role.load(role.config), role.name, config_file, output)
