"""`livery up`: everything on this machine, in one command.

Owns: the options and building the parts. Does not own: the order of things (`supervisor`).
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import click

from livery.errors import Kind, LiveryError
from livery.identity import TrustDomain
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.files import FileNotWritten, StateLock, passable_directory
from livery_cli.exits import Exit
from livery_cli.terminal.options import DURATION, default_state
from livery_cli.up.board import Board
from livery_cli.up.entries import Registrar
from livery_cli.up.layout import Layout
from livery_cli.up.node_identity import node_identity
from livery_cli.up.observer import Observer
from livery_cli.up.persona import personas
from livery_cli.up.roles import SERVICES, Roles
from livery_cli.up.screen import screen
from livery_cli.up.settings import Settings
from livery_cli.up.supervisor import Parts, Supervisor

_SHORTEST_TTL = timedelta(seconds=12)
_LONGEST_TTL = timedelta(hours=4)  # a sixth of the CA's own life: what is never cut short


class CannotUseState(LiveryError):
    """The state directory cannot be made or written."""

    code: ClassVar[str] = "state_unusable"
    kind: ClassVar[Kind] = Kind.PRECONDITION


@click.command()
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=lambda: default_state("up"),
    show_default="<state>/up",
    help="Where everything is kept; a second start resumes from it.",
)
@click.option("--trust-domain", default="demo.livery.test", show_default=True, help="The trust domain's name.")
@click.option("--svid-ttl", type=DURATION, default="30s", show_default=True, help="Life of the workloads' SVIDs.")
@click.option("--rate", type=click.FloatRange(0.1, 1000), default=50, show_default=True, help="Demo calls a second.")
@click.option("--demo/--no-demo", default=True, show_default=True, help="Run the two demo services.")
@click.option("--for", "run_for", type=DURATION, help="Stop after this long; exit 0 if no call failed, else 1.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["screen", "json"]),
    default="screen",
    show_default=True,
    help="A live table (plain lines when not at a terminal), or one JSON event a line.",
)
def up(
    state: Path,
    trust_domain: str,
    svid_ttl: timedelta,
    rate: float,
    demo: bool,
    run_for: timedelta | None,
    output: str,
) -> int:
    """Run everything on this machine: CA, agent, policy and two demo services.

    Ctrl-C stops it all. A second start resumes the same trust domain.
    """
    if not _SHORTEST_TTL <= svid_ttl <= _LONGEST_TTL:
        raise click.BadParameter("choose between 12s and 4h", param_hint="--svid-ttl")
    if math.isnan(rate):  # which no range leaves out
        raise click.BadParameter("it is not a number of calls a second", param_hint="--rate")
    settings = Settings(state, TrustDomain.parse(trust_domain).name, svid_ttl, rate, demo, run_for, output)
    fine = asyncio.run(_run(settings, SystemClock()))
    if fine is None:
        raise click.Abort
    return Exit.DONE if fine else Exit.NO


async def _run(settings: Settings, clock: Clock) -> bool | None:
    with ExitStack() as held:
        layout = _layout(settings.state, held)
        board = Board()
        shown = screen(settings.output, board)
        shown.progress(f"starting, with state in {layout.state}")
        parts = Parts(
            layout=layout,
            roles=_roles(settings, layout, clock),
            registrar=Registrar(layout.ca_socket),
            observer=Observer(layout),
            board=board,
            screen=shown,
            clock=clock,
        )
        stop = asyncio.Event()
        for number in _stopping():
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await Supervisor(settings, parts).run(stop)


def _stopping() -> Iterator[signal.Signals]:
    """The signals that stop it; not the end of its terminal where it was started to outlive that (nohup)."""
    yield from (signal.SIGINT, signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        yield signal.SIGHUP


def _layout(state: Path, held: ExitStack) -> Layout:
    """The directories of this state, locked; the temporary one, if there is one, goes away at the end."""
    with _usable(state):
        passable_directory(state)
        held.enter_context(StateLock(state / "up.lock"))
        layout = Layout.at(state)
    if layout.borrowed_run:
        held.callback(layout.give_back)
    return layout


def _roles(settings: Settings, layout: Layout, clock: Clock) -> Roles:
    """The roles, with all that they find in the state when they start."""
    with _usable(layout.state):
        node = node_identity(layout.state / "node", clock.now())
        roles = Roles(settings, layout, node, personas(SERVICES, layout.state / "services"))
        roles.hand_over()
        roles.write_policy()
    return roles


@contextmanager
def _usable(state: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(state, f"{error.strerror or error} ({error.filename2 or error.filename or state})") from error
    except FileNotWritten as error:
        raise _unusable(state, f"{error.why} ({state})") from error


def _unusable(state: Path, why: str) -> CannotUseState:
    fix = "give another --state, or make this one writable and make room in it"
    return CannotUseState(f"the state directory {state} cannot be used", why=why, fix=fix)
