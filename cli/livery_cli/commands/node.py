"""`livery node`: attested agents, seen from the CA.

Owns: the command forms. Does not own: what a ban or an eviction does (the CA's): a banned agent is turned away until
it is evicted; an evicted one may attest again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import click

from livery.wire import agent_api, types_api
from livery_cli.peers.client import Peer, ca_at, channel, seconds
from livery_cli.peers.live_ids import complete_agent_id
from livery_cli.peers.wire_text import id_from_wire, id_to_wire, selectors_from_wire
from livery_cli.terminal.options import DURATION, ca_socket_option, output_option, timeout_option
from livery_cli.terminal.output import Shown, View, at, one, several, show_done
from livery_cli.terminal.watching import watchable

VIEW = View(
    {
        "id": "AGENT",
        "attestation": "ATTESTED BY",
        "expires_at": "SVID EXPIRES",
        "banned": "BANNED",
        "version": "VERSION",
        "selectors": "SELECTORS",
    },
    name="id",
)
_PAGE = 500


@click.group()
def node() -> None:
    """Attested agents, seen from the CA."""


def _row(agent: types_api.Agent) -> dict[str, object]:
    return {
        "id": id_from_wire(agent.id),
        "attestation": agent.attestation_type,
        "serial_number": _serial(agent.x509svid_serial_number),
        "expires_at": at(agent.x509svid_expires_at),
        "can_reattest": agent.can_reattest,
        "banned": agent.banned,
        "version": agent.agent_version,
        "selectors": selectors_from_wire(agent.selectors),
    }


def _serial(decimal: str) -> str:
    """The wire has serial numbers in decimal; logs, `inspect` and openssl in hexadecimal."""
    return f"{int(decimal):x}" if decimal.isdecimal() else decimal


@node.command("list")
@click.option("--attested-by", help="Only agents attested by this method, such as join_token or x509pop.")
@click.option("--banned/--not-banned", default=None, help="Only banned agents, or only the others.")
@ca_socket_option
@timeout_option
@output_option
@watchable
def list_(attested_by: str | None, banned: bool | None, ca_socket: str, timeout: timedelta) -> Shown:
    """List agents."""
    criteria = agent_api.ListAgentsRequest.Filter(by_attestation_type=attested_by or "")
    if banned is not None:
        criteria.by_banned.value = banned
    return several([_row(agent) for agent in _all(ca_at(ca_socket), criteria, timeout)], VIEW)


def _all(peer: Peer, criteria: agent_api.ListAgentsRequest.Filter, timeout: timedelta) -> Iterator[types_api.Agent]:
    with channel(peer) as opened:
        stub = agent_api.AgentStub(opened)
        token = ""
        while True:
            request = agent_api.ListAgentsRequest(filter=criteria, page_size=_PAGE, page_token=token)
            page = stub.ListAgents(request, timeout=seconds(timeout))
            yield from page.agents
            token = page.next_page_token
            if not token:
                return


@node.command("show")
@click.argument("agent_id", shell_complete=complete_agent_id)
@ca_socket_option
@timeout_option
@output_option
@watchable
def show_(agent_id: str, ca_socket: str, timeout: timedelta) -> Shown:
    """Show one agent."""
    with channel(ca_at(ca_socket)) as opened:
        request = agent_api.GetAgentRequest(id=id_to_wire(agent_id))
        found = agent_api.AgentStub(opened).GetAgent(request, timeout=seconds(timeout))
    return one(_row(found), VIEW)


@node.command(short_help="Turn an agent away until it is evicted.")
@click.argument("agent_id", shell_complete=complete_agent_id)
@ca_socket_option
@timeout_option
@output_option
def ban(agent_id: str, ca_socket: str, timeout: timedelta, output: str) -> None:
    """Turn an agent away for good: its SVID stops working and it may not attest again until it is evicted."""
    with channel(ca_at(ca_socket)) as opened:
        request = agent_api.BanAgentRequest(id=id_to_wire(agent_id))
        agent_api.AgentStub(opened).BanAgent(request, timeout=seconds(timeout))
    show_done("banned", [agent_id], output)


@node.command()
@click.argument("agent_id", shell_complete=complete_agent_id)
@ca_socket_option
@timeout_option
@output_option
def evict(agent_id: str, ca_socket: str, timeout: timedelta, output: str) -> None:
    """Forget an agent: its SVID stops working, and it may attest anew."""
    with channel(ca_at(ca_socket)) as opened:
        request = agent_api.DeleteAgentRequest(id=id_to_wire(agent_id))
        agent_api.AgentStub(opened).DeleteAgent(request, timeout=seconds(timeout))
    show_done("evicted", [agent_id], output)


@node.command()
@click.option("--expired-for", type=DURATION, default="24h", show_default=True, help="Only agents expired this long.")
@click.option("--dry-run/--no-dry-run", default=False, help="Only say which.")
@ca_socket_option
@timeout_option
@output_option
def prune(expired_for: timedelta, dry_run: bool, ca_socket: str, timeout: timedelta, output: str) -> None:
    """Evict agents whose SVID ran out long ago; banned agents stay banned."""
    from datetime import UTC, datetime

    before = datetime.now(UTC) - expired_for
    criteria = agent_api.ListAgentsRequest.Filter(by_expires_before=f"{before:%Y-%m-%d %H:%M:%S} +0000 +00")
    criteria.by_banned.value = False
    gone = [id_from_wire(agent.id) for agent in _all(ca_at(ca_socket), criteria, timeout)]
    if dry_run:
        show_done("would evict", gone, output)
    else:
        _evict_all(ca_at(ca_socket), gone, timeout, output)
    if not gone:
        click.echo("nothing to prune", err=True)


def _evict_all(peer: Peer, gone: list[str], timeout: timedelta, output: str) -> None:
    evicted: list[str] = []
    try:
        with channel(peer) as opened:
            stub = agent_api.AgentStub(opened)
            for agent_id in gone:
                stub.DeleteAgent(agent_api.DeleteAgentRequest(id=id_to_wire(agent_id)), timeout=seconds(timeout))
                evicted.append(agent_id)
    finally:
        show_done("evicted", evicted, output)
