"""`livery svid`: SVIDs through the Workload API, as any workload gets them.

Owns: the command forms. What it gets is what the calling process is entitled to: run it as the workload's user to see
what the workload sees.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import click

from livery.identity import SpiffeId, TrustBundle, X509Svid
from livery.identity.jwt_svid import MAX_TOKEN_BYTES
from livery.wire import workload_api
from livery_cli.commands.svid_files import write_svid
from livery_cli.exits import Exit
from livery_cli.peers.client import (
    WORKLOAD_HEADER,
    BadRequest,
    NotFound,
    Refused,
    Unreachable,
    agent_at,
    channel,
    seconds,
)
from livery_cli.peers.live_ids import complete_own_id
from livery_cli.terminal.interrupts import pause
from livery_cli.terminal.options import endpoint_socket_option, output_option, timeout_option
from livery_cli.terminal.output import View, several, show, show_one
from livery_cli.terminal.watching import printing

X509_VIEW = View(
    {
        "spiffe_id": "SPIFFE ID",
        "serial_number": "SERIAL",
        "expires_at": "EXPIRES",
        "expires_in": "IN",
        "hint": "HINT",
    },
    name="spiffe_id",
)
JWT_VIEW = View({"spiffe_id": "SPIFFE ID", "token": "TOKEN"}, name="token")
_AGAIN = 0.5  # seconds between two questions of --wait


@click.group()
def svid() -> None:
    """SVIDs through the Workload API, as a workload."""


@svid.group("x509")
def x509_() -> None:
    """X.509-SVIDs."""


@svid.group("jwt")
def jwt_() -> None:
    """JWT-SVIDs."""


def _responses(endpoint: str, timeout: float | None) -> Iterator[workload_api.X509SVIDResponse]:
    with channel(agent_at(endpoint)) as opened:
        stub = workload_api.SpiffeWorkloadAPIStub(opened)
        yield from stub.FetchX509SVID(workload_api.X509SVIDRequest(), metadata=WORKLOAD_HEADER, timeout=timeout)


def _first_response(endpoint: str, timeout: timedelta, *, wait: bool) -> workload_api.X509SVIDResponse:
    """The first answer. To wait is to ask again while there is none: a new entry takes its agent a moment to learn of,
    and an agent that is being started takes one to serve.
    """
    end = time.monotonic() + seconds(timeout)
    while True:
        try:
            return next(_responses(endpoint, max(end - time.monotonic(), _AGAIN)))
        except (Refused, Unreachable):
            if not wait or time.monotonic() > end:
                raise
        pause(_AGAIN)


def _row(received: X509Svid, hint: str) -> dict[str, object]:
    now = datetime.now(UTC)
    return {
        "spiffe_id": str(received.id),
        "serial_number": f"{received.serial:x}",
        "not_before": received.not_before,
        "expires_at": received.not_after,
        "expires_in": received.not_after - now,
        "hint": hint,
    }


@x509_.command("fetch")
@click.option("--write", "directory", type=click.Path(file_okay=False, path_type=Path), help="Write the files there.")
@click.option(
    "--spiffe-id",
    shell_complete=complete_own_id,
    help="Only this identity; the first one if left out and --write is given.",
)
@click.option("--wait/--no-wait", default=False, help="Until --timeout, wait for an identity that is not there yet.")
@endpoint_socket_option
@timeout_option
@output_option
def fetch_x509(
    directory: Path | None, spiffe_id: str | None, wait: bool, endpoint_socket: str, timeout: timedelta, output: str
) -> None:
    """Fetch this process's X.509-SVIDs once."""
    response = _first_response(endpoint_socket, timeout, wait=wait)
    wanted = str(SpiffeId.parse(spiffe_id)) if spiffe_id else None
    found = [each for each in response.svids if wanted in (None, each.spiffe_id)]
    if not found:
        held = ", ".join(each.spiffe_id for each in response.svids)
        raise NotFound(f"this process has no identity {wanted}", why=f"it has {held}")
    rows = [_row(X509Svid.from_der(each.x509_svid, each.x509_svid_key), each.hint) for each in found]
    if directory is not None:
        first = found[0]
        parsed = X509Svid.from_der(first.x509_svid, first.x509_svid_key)
        held_bundle = TrustBundle.from_x509_der(parsed.id.trust_domain, first.bundle)
        bundle = [authority.der() for authority in held_bundle.x509_authorities]
        rows[0] |= write_svid(directory, parsed.chain_ders(), parsed.key_der(), bundle)
        show_one(rows[0], X509_VIEW, output)
    else:
        show(rows, X509_VIEW, output)


@x509_.command("watch", short_help="Show them, and again at each rotation.")
@endpoint_socket_option
@output_option
def watch_x509(endpoint_socket: str, output: str) -> None:
    """Show this process's X.509-SVIDs, and again at each rotation, until interrupted."""
    present = printing(output)
    for response in _responses(endpoint_socket, None):
        rows = [_row(X509Svid.from_der(each.x509_svid, each.x509_svid_key), each.hint) for each in response.svids]
        present(several(rows, X509_VIEW))


@jwt_.command("fetch")
@click.option("--audience", "audiences", multiple=True, required=True, help="Whom it is for; repeat for each.")
@click.option("--spiffe-id", default="", shell_complete=complete_own_id, help="Only this identity.")
@endpoint_socket_option
@timeout_option
@output_option
def fetch_jwt(
    audiences: tuple[str, ...], spiffe_id: str, endpoint_socket: str, timeout: timedelta, output: str
) -> None:
    """Fetch this process's JWT-SVIDs."""
    request = workload_api.JWTSVIDRequest(audience=audiences, spiffe_id=spiffe_id)
    peer = agent_at(endpoint_socket)
    if spiffe_id:  # it may have others
        peer = replace(peer, if_denied=f"see what it has with `livery svid x509 fetch`; or {peer.if_denied}")
    with channel(peer) as opened:
        stub = workload_api.SpiffeWorkloadAPIStub(opened)
        response = stub.FetchJWTSVID(request, metadata=WORKLOAD_HEADER, timeout=seconds(timeout))
    rows = [{"spiffe_id": each.spiffe_id, "token": each.svid, "hint": each.hint} for each in response.svids]
    show(rows, JWT_VIEW, output)


@jwt_.command("validate", short_help="Validate a JWT-SVID; exit 0 or 1.")
@click.argument("token", type=click.File("rb"), default="-")
@click.option("--audience", required=True, help="Who we are: the token must be for us.")
@endpoint_socket_option
@timeout_option
@output_option
def validate_jwt(token: BinaryIO, audience: str, endpoint_socket: str, timeout: timedelta, output: str) -> int:
    """Validate a JWT-SVID read from a file or from standard input; exit 1 if it is not valid."""
    # What is no text at all comes out as text that is no token; what is cut off is longer than any token.
    text = token.read(MAX_TOKEN_BYTES + 1).decode("utf-8", "replace").strip()
    request = workload_api.ValidateJWTSVIDRequest(audience=audience, svid=text)
    row: dict[str, object] = {"spiffe_id": None, "valid": False, "claims": None, "why": None}
    try:
        with channel(agent_at(endpoint_socket)) as opened:
            stub = workload_api.SpiffeWorkloadAPIStub(opened)
            response = stub.ValidateJWTSVID(request, metadata=WORKLOAD_HEADER, timeout=seconds(timeout))
    except BadRequest as refusal:
        if output == "json":
            show_one(row | {"why": refusal.what}, View({}, name="spiffe_id"), output)
        else:
            click.echo(f"not valid: {refusal.what}", err=True)
        return Exit.NO
    row |= {"spiffe_id": response.spiffe_id, "valid": True, "claims": _claims(response)}
    if output != "json":
        row["claims"] = json.dumps(row["claims"])
        del row["why"]
    show_one(row, View({}, name="spiffe_id"), output)
    return Exit.DONE


def _claims(response: workload_api.ValidateJWTSVIDResponse) -> dict[str, object]:
    """The claims in a stable order. A `Struct` knows no integers: a time that came as one is one again."""
    from google.protobuf.json_format import MessageToDict

    return {name: _whole(value) for name, value in sorted(MessageToDict(response.claims).items())}


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
