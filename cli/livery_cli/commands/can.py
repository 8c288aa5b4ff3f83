"""`livery can`: may this call be made? Exit 0 yes, 1 no, with the reason.

Owns: the command form. Does not own: the answer: the running server's, or, with `--policies`, the engine's on files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from livery_cli.commands.vocabulary import configured_vocabulary
from livery_cli.exits import Exit
from livery_cli.peers.decisions import policy_at, show_decision
from livery_cli.peers.live_ids import complete_spiffe_id
from livery_cli.peers.unix_http import ask
from livery_cli.terminal.options import config_option, output_option, policy_socket_option, timeout_option


class Json(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Parse the text; refuse what is not an object."""
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(str(value))
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail('not a JSON object; write it like {"http": {"path": "/stock/1"}}', param, ctx)
        return found


@click.command()
@click.argument("principal", shell_complete=complete_spiffe_id)
@click.argument("action")
@click.argument("resource", shell_complete=complete_spiffe_id)
@click.option("--context", type=Json(), default="{}", help='The call\'s context, such as {"http": {"path": "/x"}}.')
@click.option(
    "--policies",
    type=click.Path(exists=True, path_type=Path),
    help="Ask these policies (a directory or a file) instead of the running server.",
)
@config_option
@policy_socket_option
@timeout_option
@output_option
def can(
    principal: str,
    action: str,
    resource: str,
    context: dict[str, Any],
    policies: Path | None,
    config_file: Path | None,
    policy_socket: str,
    timeout: timedelta,
    output: str,
) -> int:
    """May PRINCIPAL do ACTION (http:GET, grpc, connect, ...) at RESOURCE? Exit 0 yes, 1 no.

    With --policies, the headers and claims that policies may read are those of the server's configuration.
    """
    if policies is not None:
        from livery_policy.offline import Wish
        from livery_policy.offline import can as can_offline

        decision: Mapping[str, Any] = can_offline(
            Wish(principal, action, resource, context),
            policies,
            datetime.now(UTC),
            configured_vocabulary(config_file),
        )
    else:
        if click.get_current_context().get_parameter_source("config_file") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--config is for --policies: the running server has its own")
        asked = {"principal": principal, "action": action, "resource": resource, "context": context}
        answer = ask(policy_at(policy_socket), "POST", "/admin/can", asked, timeout=timeout)
        decision = _decision(answer.status, answer.body)
    show_decision(decision, output)
    return Exit.DONE if decision["outcome"] == "allow" else Exit.NO


def _decision(status: int, body: object) -> Mapping[str, Any]:
    from livery_cli.peers.client import BadRequest, Unreachable

    if status == HTTPStatus.NOT_FOUND:
        raise Unreachable(
            "what answers there is no policy server", why="it knows no /admin/can", fix="give its --policy-socket"
        )
    if status != HTTPStatus.OK or not isinstance(body, dict):
        said = body if isinstance(body, dict) else {}
        raise BadRequest(str(said.get("what", "the question was refused")), why=str(said.get("why", status)))
    return body
