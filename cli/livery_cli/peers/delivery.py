"""`--wait` of the commands that change entries: they end when every live agent has been given the change.

Owns: the option, asking the CA again and again, and saying which agents have it. Does not own: which agents are live or
what they were given (`livery.v1.Delivery`, the CA's).

Invariant: with `--wait`, a server that cannot tell is found out before anything is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, ClassVar

import click
import grpc
from click.core import ParameterSource

from livery.errors import Kind, LiveryError
from livery.wire import livery_api
from livery_cli.exits import Exit
from livery_cli.peers.client import Peer, Unreachable, ca_at, channel, seconds
from livery_cli.peers.wire_text import id_from_wire
from livery_cli.terminal.interrupts import pause

PATIENCE = timedelta(seconds=60)
_AGAIN = 0.2  # seconds between two questions

Ask = Callable[[int], livery_api.GetDeliveryResponse]


class CannotTell(LiveryError):
    """The server does not know what its agents have been given."""

    code: ClassVar[str] = "cannot_tell"
    kind: ClassVar[Kind] = Kind.UNIMPLEMENTED


def waits_for_agents(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Add `--wait` to a command that has `--ca-socket` and `--timeout`; the lowest of its decorators."""

    @click.option(
        "--wait/--no-wait",
        default=False,
        help="Until --timeout (60s unless given), wait until every live agent has been given the change.",
    )
    @wraps(command)
    def run(*, wait: bool, ca_socket: str, timeout: timedelta, **fields: Any) -> int | None:
        if not wait:
            return command(ca_socket=ca_socket, timeout=timeout, **fields)
        given = click.get_current_context().get_parameter_source("timeout") is not ParameterSource.DEFAULT

        def ask(sequence: int) -> livery_api.GetDeliveryResponse:
            return get_delivery(ca_at(ca_socket), sequence, timeout)

        ask(0)
        code = command(ca_socket=ca_socket, timeout=timeout, **fields)
        return code or wait_until_delivered(ask, timeout if given else PATIENCE)

    return run


def get_delivery(peer: Peer, sequence: int, timeout: timedelta) -> livery_api.GetDeliveryResponse:
    """Which live agents have this change (0: the latest); raises `CannotTell`."""
    with channel(peer) as opened:
        request = livery_api.GetDeliveryRequest(sequence=sequence)
        try:
            return livery_api.DeliveryStub(opened).GetDelivery(request, timeout=seconds(timeout))
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise CannotTell(
                    f"{peer.name} at {peer.address} cannot tell what its agents have been given",
                    why="it does not offer livery.v1.Delivery, and SPIRE's servers do not",
                    fix="leave --wait out, and give agents their interval; nothing has been changed yet",
                ) from error
            raise


def wait_until_delivered(
    ask: Ask,
    patience: timedelta,
    *,
    sleep: Callable[[float], None] = pause,
    monotonic: Callable[[], float] = time.monotonic,
) -> Exit:
    """Wait until every live agent has the change that is the latest now, and say of each that it has it.

    A CA that is away meanwhile, from the first question on, is asked again until the time is over, and is the error
    then.
    """
    end = monotonic() + patience.total_seconds()
    sequence = 0
    have: set[str] = set()
    while True:
        try:
            answer = ask(sequence)
        except Unreachable:
            if monotonic() >= end:
                raise
            sleep(_AGAIN)
            continue
        sequence = sequence or answer.latest_sequence
        agents = {id_from_wire(agent.id): agent.has_it for agent in answer.agents}
        for agent_id in sorted(agent_id for agent_id, has_it in agents.items() if has_it and agent_id not in have):
            click.echo(f"has it: {agent_id}", err=True)
            have.add(agent_id)
        missing = sorted(agent_id for agent_id, has_it in agents.items() if not has_it)
        if not missing:
            click.echo("every live agent has it" if agents else "no agent is live; whoever attests gets it", err=True)
            return Exit.DONE
        if monotonic() >= end:
            for agent_id in missing:
                click.echo(f"does not have it: {agent_id}", err=True)
            return Exit.NO
        sleep(_AGAIN)
