"""`livery policy`: the decision server as a process, and policies as files.

Owns: the command forms. Does not own: the role itself (`livery_policy`), which only `run`, `check` and `config check`
load.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import click

from livery.errors import LiveryError
from livery_cli.commands.health import VIEW
from livery_cli.commands.role_commands import RoleModules, add_role_commands
from livery_cli.commands.vocabulary import configured_vocabulary
from livery_cli.exits import Exit
from livery_cli.peers.client import NotReady, Peer
from livery_cli.peers.decisions import find_decision, policy_at, show_decision
from livery_cli.peers.unix_http import ask
from livery_cli.plain_text import one_line
from livery_cli.terminal.options import config_option, output_option, policy_socket_option, timeout_option
from livery_cli.terminal.output import Shown, one
from livery_cli.terminal.watching import watchable


@click.group()
def policy() -> None:
    """The decision server, and policies as files."""


@policy.command(short_help="Check policy files and directories; exit 0 or 1.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@config_option
@output_option
def check(paths: tuple[Path, ...], config_file: Path | None, output: str) -> int:
    """Check policy files and directories, taken together as one set; exit 1 if a server would not load them.

    The headers and claims that policies may read are those of the server's configuration.
    """
    from livery_policy.offline import check as check_policies

    findings = check_policies(paths, configured_vocabulary(config_file))
    if output == "json":
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    elif output == "name":
        for place in dict.fromkeys(finding.where for finding in findings):
            click.echo(one_line(place))
    else:
        for finding in findings:
            click.echo(one_line(str(finding)))
    errors = sum(finding.is_error for finding in findings)
    if output == "table":
        click.echo(f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}")
    return Exit.NO if errors else Exit.DONE


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@policy.command(short_help="Ask the server how it is; exit 0 or 1.")
@policy_socket_option
@timeout_option
@output_option
@watchable
def health(policy_socket: str, timeout: timedelta) -> Shown:
    """Ask the server how it is; exit 0 if it decides, 1 if not, or if it decides by older policies than its files."""
    peer = policy_at(policy_socket)
    try:
        body = ask(peer, "GET", "/health", timeout=timeout).body
        said = body.get("status") if isinstance(body, dict) else None
    except NotReady as answer:
        said = answer.why
    serving = said == "ok"
    row = {"role": "policy", "serving": serving, "why": None if serving else _why(peer, str(said), timeout)}
    return one(row, VIEW, Exit.DONE if serving else Exit.NO)


def _why(peer: Peer, said: str, timeout: timedelta) -> str:
    """The word that anybody is told and, for an administrator, what is wrong with the files."""
    try:
        body = ask(peer, "GET", "/admin/policies", timeout=timeout).body
    except LiveryError:
        return said
    error = body.get("error") if isinstance(body, dict) else None
    return f"{said}: {error}" if error else said


@click.command(short_help="Why a decision came out as it did.")
@click.argument("decision_id")
@policy_socket_option
@timeout_option
@output_option
def explain(decision_id: str, policy_socket: str, timeout: timedelta, output: str) -> None:
    """Why the decision DECISION_ID came out as it did: deciding policies, or the nearest one and what failed."""
    show_decision(find_decision(policy_at(policy_socket), decision_id, timeout), output)


policy.add_command(explain)
add_role_commands(
    policy, RoleModules("policy", "the decision server", "livery_policy.config:PolicyConfig", "livery_policy.main:run")
)
