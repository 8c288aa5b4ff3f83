"""What a shell completes from what is there: the ids of entries and agents, as the CA has them at this moment.

Owns: asking for them, within `PATIENCE` and without a word of what went wrong: who presses Tab has asked for nothing.
Does not own: the shells' scripts (`completion`), or which parameter takes what (the commands say).

Invariant: nothing is offered that a shell could take for more than a word.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import click

from livery.runtime.directories import runtime_directory

if TYPE_CHECKING:
    import grpc
    from click.shell_completion import CompletionItem

PATIENCE = 1.0  # seconds, in all
_PAGE = 500
_WORD = re.compile(r"[A-Za-z0-9._:/@+-]+")

Found = Iterator[tuple[str, str]]  # an id, and what a shell may say beside it
Items: TypeAlias = "list[CompletionItem[str]]"


def complete_entry_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Ids of entries."""
    return _offered(_entries, context, parameter, incomplete)


def complete_spiffe_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """SPIFFE IDs that entries give."""
    return _offered(_spiffe_ids, context, parameter, incomplete)


def complete_agent_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """SPIFFE IDs of agents."""
    return _offered(_agent_ids, context, parameter, incomplete)


def complete_parent_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """SPIFFE IDs by which an entry can name its parent: of agents, and of other entries."""
    return _offered(lambda ca: chain(_agent_ids(ca), _spiffe_ids(ca)), context, parameter, incomplete)


class _Ca:
    """The CA, for as long as the patience lasts."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._end = time.monotonic() + PATIENCE

    def left(self) -> float:
        """How long an answer may take."""
        return self._end - time.monotonic()


def _offered(
    find: Callable[[_Ca], Found], context: click.Context, parameter: click.Parameter, incomplete: str
) -> Items:
    from click.shell_completion import CompletionItem

    from livery_cli.client import ca_at, channel

    taken = context.params.get(parameter.name or "")
    passed = set(taken) if isinstance(taken, tuple) else set()
    found: dict[str, str] = {}
    with suppress(Exception), channel(ca_at(_address(context))) as opened:
        for value, beside in find(_Ca(opened)):
            if value.startswith(incomplete) and value not in passed and _WORD.fullmatch(value):
                found.setdefault(value, beside)
    return [CompletionItem(value, help=beside or None) for value, beside in sorted(found.items())]


def _address(context: click.Context) -> str:
    chosen = context.params.get("ca_socket") or os.environ.get("LIVERY_CA_SOCKET")
    return str(chosen or f"unix:{runtime_directory()}/ca/admin.sock")


def _entries(ca: _Ca) -> Found:
    """The id and the SPIFFE ID of each entry."""
    from livery.wire import entry_api, types_api
    from livery_cli.wire_text import id_from_wire

    stub, token = entry_api.EntryStub(ca.channel), ""
    while ca.left() > 0:
        request = entry_api.ListEntriesRequest(
            output_mask=types_api.EntryMask(spiffe_id=True), page_size=_PAGE, page_token=token
        )
        page = stub.ListEntries(request, timeout=ca.left())
        yield from ((entry.id, id_from_wire(entry.spiffe_id)) for entry in page.entries)
        token = page.next_page_token
        if not token:
            return


def _spiffe_ids(ca: _Ca) -> Found:
    return ((spiffe_id, "") for _, spiffe_id in _entries(ca))


def _agent_ids(ca: _Ca) -> Found:
    from livery.wire import agent_api, types_api
    from livery_cli.wire_text import id_from_wire

    stub, token = agent_api.AgentStub(ca.channel), ""
    while ca.left() > 0:
        request = agent_api.ListAgentsRequest(
            output_mask=types_api.AgentMask(attestation_type=True), page_size=_PAGE, page_token=token
        )
        page = stub.ListAgents(request, timeout=ca.left())
        yield from ((id_from_wire(agent.id), agent.attestation_type) for agent in page.agents)
        token = page.next_page_token
        if not token:
            return
