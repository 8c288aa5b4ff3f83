"""What a shell completes from what is there: ids of entries and agents, as the CA has them, and those of this process.

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
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import click

from livery.runtime.directories import runtime_directory

if TYPE_CHECKING:
    import grpc
    from click.shell_completion import CompletionItem

PATIENCE = 2.0  # seconds, in all: a machine that is busy with a deployment answers too
_PAGE = 500
_WORD = re.compile(r"[A-Za-z0-9._:/@+-]+")

Found = Iterator[tuple[str, str]]  # an id, and what a shell may say beside it
Items: TypeAlias = "list[CompletionItem[str]]"


def complete_entry_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Ids of entries."""
    return _offered(_Source(_CA, _entries), context, parameter, incomplete)


def complete_spiffe_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """SPIFFE IDs that entries give."""
    return _offered(_Source(_CA, _spiffe_ids), context, parameter, incomplete)


def complete_agent_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """SPIFFE IDs of agents."""
    return _offered(_Source(_CA, _agent_ids), context, parameter, incomplete)


def complete_parent_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """SPIFFE IDs by which an entry can name its parent: of agents, and of other entries."""
    both = _Source(_CA, lambda ca: chain(_agent_ids(ca), _spiffe_ids(ca)))
    return _offered(both, context, parameter, incomplete)


def complete_own_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """SPIFFE IDs that this very process has, as its agent says."""
    return _offered(_Source(_AGENT, _own_ids), context, parameter, incomplete)


class _Asked:
    """The other side, for as long as the patience lasts."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._end = time.monotonic() + PATIENCE

    def left(self) -> float:
        """How long an answer may take."""
        return self._end - time.monotonic()


@dataclass(frozen=True, slots=True)
class _Door:
    """Where to ask: the command's parameter, the variable and the place that name the socket, the first that does."""

    parameter: str
    variable: str
    place: str

    def address(self, context: click.Context) -> str:
        """Its address, for the command line as far as it goes."""
        chosen = context.params.get(self.parameter) or os.environ.get(self.variable)
        return str(chosen or f"unix:{runtime_directory()}/{self.place}")


@dataclass(frozen=True, slots=True)
class _Source:
    """Whom to ask, and for what."""

    door: _Door
    find: Callable[[_Asked], Found]


_CA = _Door("ca_socket", "LIVERY_CA_SOCKET", "ca/admin.sock")
_AGENT = _Door("endpoint_socket", "SPIFFE_ENDPOINT_SOCKET", "agent/workload.sock")


def _offered(source: _Source, context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    from click.shell_completion import CompletionItem

    from livery_cli.peers.client import Peer, channel

    taken = context.params.get(parameter.name or "")
    passed = set(taken) if isinstance(taken, tuple) else set()
    found: dict[str, str] = {}
    with suppress(Exception), channel(Peer("", source.door.address(context), "")) as opened:
        for value, beside in source.find(_Asked(opened)):
            if value.startswith(incomplete) and value not in passed and _WORD.fullmatch(value):
                found.setdefault(value, beside)
    return [CompletionItem(value, help=beside or None) for value, beside in sorted(found.items())]


def _entries(ca: _Asked) -> Found:
    """The id and the SPIFFE ID of each entry."""
    from livery.wire import entry_api, types_api
    from livery_cli.peers.wire_text import id_from_wire

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


def _spiffe_ids(ca: _Asked) -> Found:
    return ((spiffe_id, "") for _, spiffe_id in _entries(ca))


def _agent_ids(ca: _Asked) -> Found:
    from livery.wire import agent_api, types_api
    from livery_cli.peers.wire_text import id_from_wire

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


def _own_ids(agent: _Asked) -> Found:
    from livery.wire import workload_api
    from livery_cli.peers.client import WORKLOAD_HEADER

    stub = workload_api.SpiffeWorkloadAPIStub(agent.channel)
    stream = stub.FetchX509SVID(workload_api.X509SVIDRequest(), metadata=WORKLOAD_HEADER, timeout=agent.left())
    return ((each.spiffe_id, each.hint) for each in next(iter(stream)).svids)
