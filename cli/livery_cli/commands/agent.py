"""`livery agent`: the node daemon as a process, and how it is.

Owns: the command forms. Does not own: the role itself (`livery_agent`), which only `run` and `config check` load;
`livery inspect` shows what an agent holds.
"""

from __future__ import annotations

from datetime import timedelta

import click

from livery_cli.commands.health import ask_ready
from livery_cli.commands.role_commands import RoleModules, add_role_commands
from livery_cli.peers.client import agent_at
from livery_cli.terminal.options import agent_socket_option, output_option, timeout_option
from livery_cli.terminal.output import Shown
from livery_cli.terminal.watching import watchable


@click.group()
def agent() -> None:
    """The node agent."""


@agent.command(short_help="Ask the agent how it is; exit 0 or 1.")
@agent_socket_option
@timeout_option
@output_option
@watchable
def health(agent_socket: str, timeout: timedelta) -> Shown:
    """Ask the agent how it is; exit 0 if it is ready to serve workloads, 1 with the reason if not."""
    return ask_ready("agent", agent_at(agent_socket), timeout)


add_role_commands(agent, RoleModules("agent", "the agent", "livery_agent.config:AgentConfig", "livery_agent.main:run"))
