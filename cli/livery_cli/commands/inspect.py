"""`livery inspect`: on a node, what its agent holds; works with the CA down.

Owns: how the agent's document is shown. Does not own: the document (docs/agent.md has its fields); `-o json` prints it
as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from livery_cli.peers.client import agent_at
from livery_cli.peers.unix_http import ask
from livery_cli.plain_text import one_line
from livery_cli.terminal.options import agent_socket_option, output_option, timeout_option
from livery_cli.terminal.output import Shown, View, duration, several
from livery_cli.terminal.watching import watchable

VIEW = View(
    {
        "spiffe_id": "IDENTITY",
        "state": "STATE",
        "serial": "SERIAL",
        "expires_in": "EXPIRES IN",
        "renews_in": "RENEWS IN",
        "selectors": "SELECTORS",
    },
    name="spiffe_id",
)
_TICKING = {"time", "synced_at"}  # they differ at each look, and say nothing new


@click.command()
@agent_socket_option
@timeout_option
@output_option
@watchable
def inspect(agent_socket: str, timeout: timedelta) -> Shown:
    """On a node: identities, expiry, renewals, bundle, last error."""
    document = _document(agent_socket, timeout)
    rows = several([_row(each) for each in document["identities"]], VIEW)
    return Shown(
        document,
        rows.names,
        lambda: "\n".join([*_summary(document), rows.people()]),
        steady={key: value for key, value in document.items() if key not in _TICKING},
    )


def _document(agent_socket: str, timeout: timedelta) -> Mapping[str, Any]:
    body = ask(agent_at(agent_socket), "GET", "/inspect", timeout=timeout).body
    return body if isinstance(body, dict) else {"identities": []}


def _summary(document: Mapping[str, Any]) -> Sequence[str]:
    node = document.get("node") or {}
    lines = [
        f"trust domain  {document['trust_domain']}",
        f"node          {node['spiffe_id']}, expires in {_until(node['expires_at'])}"
        if node
        else "node          not attested",
        f"CA            {document['ca_address']}, in step {_since(document.get('synced_at'))}",
    ]
    lines += [f"bundle        {each['trust_domain']} sequence {each['sequence']}" for each in document["bundles"]]
    if document.get("clock_skew"):
        lines.append(f"clock         {document['clock_skew']}")
    lines += [f"failing       {each['work']}: {each['error']} ({each['times']} times)" for each in document["failing"]]
    return [*map(one_line, lines), ""]


def _row(identity: Mapping[str, Any]) -> dict[str, object]:
    return {
        **identity,
        "expires_in": _until(identity.get("expires_at")),
        "renews_in": _until(identity.get("renew_at")),
    }


def _until(moment: str | None) -> str:
    return duration(datetime.fromisoformat(moment) - datetime.now(UTC)) if moment else "-"


def _since(moment: str | None) -> str:
    return f"{duration(datetime.now(UTC) - datetime.fromisoformat(moment))} ago" if moment else "never"
