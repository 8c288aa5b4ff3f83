"""`livery ca`: the authority as a process, and what an operator asks of it.

Owns: the command forms. Does not own: the role itself (`livery_ca`), which only `run` and `config check` load.
"""

from __future__ import annotations

import shlex
from datetime import timedelta
from pathlib import Path

import click

from livery.identity import TrustDomain
from livery.runtime.directories import runtime_directory
from livery_cli.commands.role_commands import RoleModules, add_role_commands
from livery_cli.exits import Exit
from livery_cli.peers.client import Refused, ca_at, channel, seconds
from livery_cli.terminal.options import ca_socket_option, default_state, output_option, timeout_option
from livery_cli.terminal.output import Shown, View, one
from livery_cli.terminal.toml_text import toml
from livery_cli.terminal.watching import watchable

HEALTH = View({"role": "ROLE", "serving": "SERVING"}, name="role")
_COMMENT = """\
The CA's configuration; docs/ca.md has every setting. LIVERY_CA__<FIELD> overrides a field.
For node attestation with certificates of your own PKI, add a table [ca.x509pop] with ca_bundle_paths."""


@click.group()
def ca() -> None:
    """The authority."""


@ca.command(short_help="Write a configuration to start from.")
@click.option("--trust-domain", required=True, help="The trust domain's name; it cannot be changed later.")
@click.option("--state", type=click.Path(path_type=Path), help="Where the database and the keys will be kept.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The TOML file to write.")
def init(trust_domain: str, state: Path | None, config_file: Path | None) -> None:
    """Write a configuration to start from; a file that exists is left alone."""
    state = state or default_state("ca")
    config_file = config_file or state / "livery.toml"
    table = {
        "trust_domain": TrustDomain.parse(trust_domain).name,
        "state_dir": state.absolute(),
        "listen_host": "127.0.0.1",
        "listen_port": 8081,
        "admin_socket": runtime_directory() / "ca" / "admin.sock",
    }
    try:
        if config_file.exists():
            raise Refused(f"{config_file} exists", why="it is not overwritten", fix="edit it, or give another --config")
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        config_file.parent.mkdir(parents=True, exist_ok=True)
        with config_file.open("x", encoding="utf-8") as file:
            file.write(toml({"ca": table}, _COMMENT))
    except OSError as error:
        raise Refused(
            f"{config_file} cannot be written", why=str(error), fix="give a --config and --state you own"
        ) from error
    click.echo(f"wrote {config_file}\nnext: livery ca run --config {shlex.quote(str(config_file))}")


@ca.command(short_help="Ask the CA how it is; exit 0 or 1.")
@ca_socket_option
@timeout_option
@output_option
@watchable
def health(ca_socket: str, timeout: timedelta) -> Shown:
    """Ask the CA how it is; exit 0 if it serves, 1 if it says that it does not."""
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

    with channel(ca_at(ca_socket)) as opened:
        check = opened.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        answer = check(HealthCheckRequest(), timeout=seconds(timeout))
    serving = answer.status == HealthCheckResponse.SERVING
    return one({"role": "ca", "serving": serving}, HEALTH, Exit.DONE if serving else Exit.NO)


add_role_commands(ca, RoleModules("ca", "the CA", "livery_ca.config:CaConfig", "livery_ca.main:run"))
