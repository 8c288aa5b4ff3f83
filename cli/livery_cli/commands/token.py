"""`livery token`: one-time tickets by which a new agent proves that it was invited.

Owns: the command form. The token is printed to standard output alone, so that `$(livery token create -o name)` works;
until it is spent it is a secret, and neither log nor error holds it.
"""

from __future__ import annotations

from datetime import timedelta

import click

from livery.wire import agent_api
from livery_cli.peers.client import ca_at, channel, seconds
from livery_cli.peers.wire_text import id_to_wire
from livery_cli.terminal.options import TTL, ca_socket_option, output_option, timeout_option
from livery_cli.terminal.output import View, at, show_one

VIEW = View({"token": "TOKEN", "expires_at": "EXPIRES"}, name="token")


@click.group()
def token() -> None:
    """Join tokens: one-time tickets for new agents."""


@token.command()
@click.option("--ttl", type=TTL, default="10m", show_default=True, help="How long it may be used.")
@click.option("--spiffe-id", help="Also give the agent this identity, by which entries can name it as their parent.")
@ca_socket_option
@timeout_option
@output_option
def create(ttl: timedelta, spiffe_id: str | None, ca_socket: str, timeout: timedelta, output: str) -> None:
    """Create a join token."""
    request = agent_api.CreateJoinTokenRequest(ttl=int(ttl.total_seconds()))
    if spiffe_id:
        request.agent_id.CopyFrom(id_to_wire(spiffe_id))
    with channel(ca_at(ca_socket)) as opened:
        made = agent_api.AgentStub(opened).CreateJoinToken(request, timeout=seconds(timeout))
    show_one({"token": made.value, "expires_at": at(made.expires_at)}, VIEW, output)
