"""Decisions as the policy server tells them to an administrator: found by id, shown in words.

Owns: asking for one and printing it. Does not own: the words (the server's `explanation`), so that every door of
livery explains a decision alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import click

from livery_cli.peers.client import NotFound, Peer
from livery_cli.peers.unix_http import ask
from livery_cli.plain_text import one_line


def policy_at(address: str) -> Peer:
    """The decision server behind its unix socket."""
    return Peer("the policy server", address, "livery policy run")


def find_decision(peer: Peer, decision_id: str, timeout: timedelta) -> Mapping[str, Any]:
    """A decision that was made, with its reasons; raises `NotFound` when the server no longer knows it."""
    answer = ask(peer, "GET", f"/admin/decisions/{quote(decision_id, safe='')}", timeout=timeout)
    if answer.status != HTTPStatus.OK or not isinstance(answer.body, dict):
        raise NotFound(
            f"no decision {decision_id} is known",
            why="the server keeps its latest decisions only, and none across a restart",
            fix="look for the id in the server's log, which has the same fields",
        )
    return answer.body


def reason_of(peer: Peer, decision_id: str, timeout: timedelta) -> str:
    """Why a call came out as it did, in one sentence."""
    said = find_decision(peer, decision_id, timeout).get("explanation", [])
    return "; ".join(str(line) for line in said[1:3])


def show_decision(decision: Mapping[str, Any], output: str) -> None:
    """Print a decision: its explanation, or everything as JSON, or its outcome alone."""
    if output == "json":
        click.echo(json.dumps(decision, indent=2))
    elif output == "name":
        click.echo(decision["outcome"])
    else:
        for line in decision.get("explanation", []):
            click.echo(one_line(str(line)))
        if decision.get("id"):
            click.echo(one_line(f"decision {decision['id']}"))
