"""Options that several commands share: where things are, how to print, how long to wait.

Owns: their names, defaults and environment variables, in one place so that no noun module imports another. Sockets
and state live under `/run/livery` and `/var/lib/livery` for root, under `$XDG_RUNTIME_DIR/livery` and
`$XDG_STATE_HOME/livery` for a user.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click

from livery.runtime.directories import NoHome, runtime_directory, state_directory

F = TypeVar("F", bound=Callable[..., object])

SHORTEST = 1e-6  # seconds: less would be no time at all
LONGEST = 2**31 - 1  # seconds: what the wire, and every clock we hand it to, can hold
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Duration(click.ParamType[timedelta]):
    """A duration such as `90s`, `10m`, `1h30m`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse the text; refuse what is not a positive duration."""
        if isinstance(value, timedelta):
            return value
        parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])", str(value))
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if "".join(number + unit for number, unit in parts) != str(value) or not parts:
            self.fail(f"{value!r} is not a duration; write it like 90s, 10m or 1h30m", param, ctx)
        if not SHORTEST <= seconds <= LONGEST:
            self.fail(
                f"{value!r} is too {'short' if seconds < SHORTEST else 'long'}; write it like 90s, 10m or 1h30m",
                param,
                ctx,
            )
        return timedelta(seconds=seconds)


class Ttl(Duration):
    """A duration in whole seconds, as the wire has lifetimes: rounding one would make it 0, which means the default."""

    name = "ttl"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse the text; refuse fractions of a second."""
        ttl = super().convert(value, param, ctx)
        if ttl.microseconds:
            self.fail(f"{value!r} is not in whole seconds; write it like 90s, 10m or 1h30m", param, ctx)
        return ttl


DURATION = Duration()
TTL = Ttl()


def default_state(name: str) -> Path:
    """Where the state of this name is kept when nobody says otherwise."""
    try:
        return state_directory() / name
    except NoHome as error:
        raise click.UsageError(f"{error}. Set HOME or XDG_STATE_HOME, or give --state.") from error


def output_option(command: F) -> F:
    """`-o/--output table|json|name`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "name"]),
        default="table",
        show_default=True,
        help="table for people, json for programs, name for one id a line.",
    )(command)


def ca_socket_option(command: F) -> F:
    """`--ca-socket`, the CA's administration socket."""
    return click.option(
        "--ca-socket",
        envvar="LIVERY_CA_SOCKET",
        default=lambda: f"unix:{runtime_directory()}/ca/admin.sock",
        show_default="unix:<run>/ca/admin.sock",
        help="The CA's administration socket [env: LIVERY_CA_SOCKET].",
    )(command)


def endpoint_socket_option(command: F) -> F:
    """`--endpoint-socket`, the Workload API of this node."""
    return click.option(
        "--endpoint-socket",
        envvar="SPIFFE_ENDPOINT_SOCKET",
        default=lambda: f"unix:{runtime_directory()}/agent/workload.sock",
        show_default="unix:<run>/agent/workload.sock",
        help="The Workload API's address [env: SPIFFE_ENDPOINT_SOCKET].",
    )(command)


def agent_socket_option(command: F) -> F:
    """`--agent-socket`, the agent's administration socket."""
    return click.option(
        "--agent-socket",
        envvar="LIVERY_AGENT_SOCKET",
        default=lambda: f"unix:{runtime_directory()}/agent/admin.sock",
        show_default="unix:<run>/agent/admin.sock",
        help="The agent's administration socket [env: LIVERY_AGENT_SOCKET].",
    )(command)


def policy_socket_option(command: F) -> F:
    """`--policy-socket`, the decision server's socket."""
    return click.option(
        "--policy-socket",
        envvar="LIVERY_POLICY_SOCKET",
        default=lambda: f"unix:{runtime_directory()}/policy/api.sock",
        show_default="unix:<run>/policy/api.sock",
        help="The decision server's socket [env: LIVERY_POLICY_SOCKET].",
    )(command)


def timeout_option(command: F) -> F:
    """`--timeout`, how long a client command waits for the other side."""
    return click.option(
        "--timeout",
        type=DURATION,
        default="10s",
        show_default=True,
        help="How long to wait for the other side.",
    )(command)


def config_option(command: F) -> F:
    """`--config FILE` of a role."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        envvar="LIVERY_CONFIG",
        help="TOML file [env: LIVERY_CONFIG]; LIVERY_<ROLE>__<FIELD> overrides single fields.",
    )(command)


def ready_fd_option(command: F) -> F:
    """`--ready-fd`, by which `livery up` starts a process: it also puts the process on a leash."""
    return click.option("--ready-fd", type=int, hidden=True, help="Say there that it is ready, or why it cannot be.")(
        command
    )
