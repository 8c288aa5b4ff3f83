"""`livery bundle`: the authorities of a trust domain, as SPIFFE JSON or PEM.

Owns: the command forms. Does not own: the bundle's form (`livery.identity.TrustBundle`).
"""

from __future__ import annotations

from datetime import timedelta

import click

from livery.identity import TrustBundle
from livery.runtime.spire_types import bundle_from_wire
from livery.wire import bundle_api, types_api
from livery_cli.peers.client import ca_at, channel, seconds
from livery_cli.terminal.options import ca_socket_option, output_option, timeout_option
from livery_cli.terminal.output import Shown, View, several
from livery_cli.terminal.watching import watchable

VIEW = View(
    {
        "trust_domain": "TRUST DOMAIN",
        "sequence": "SEQUENCE",
        "x509_authorities": "X.509 AUTHORITIES",
        "jwt_authorities": "JWT AUTHORITIES",
        "expires_at": "FIRST EXPIRY",
        "refresh_hint": "REFRESH",
    },
    name="trust_domain",
)


@click.group()
def bundle() -> None:
    """Trust bundles: the authorities of a trust domain."""


def _row(held: TrustBundle) -> dict[str, object]:
    ends = [authority.certificate.not_valid_after_utc for authority in held.x509_authorities]
    return {
        "trust_domain": held.trust_domain.name,
        "sequence": held.sequence,
        "x509_authorities": [authority.subject_key_id for authority in held.x509_authorities],
        "jwt_authorities": [key.key_id for key in held.jwt_authorities],
        "expires_at": min(ends, default=None),
        "refresh_hint": held.refresh_hint,
    }


@bundle.command("show")
@click.option(
    "--format",
    "form",
    type=click.Choice(["spiffe", "pem"]),
    default="spiffe",
    show_default=True,
    help="spiffe for the whole bundle as JSON, pem for its X.509 authorities.",
)
@ca_socket_option
@timeout_option
@watchable
def show_(form: str, ca_socket: str, timeout: timedelta) -> Shown:
    """Print the CA's own bundle: SPIFFE JSON, or its X.509 authorities as PEM."""
    with channel(ca_at(ca_socket)) as opened:
        stub = bundle_api.BundleStub(opened)
        held = bundle_from_wire(stub.GetBundle(bundle_api.GetBundleRequest(), timeout=seconds(timeout)))
    text = (held.to_pem() if form == "pem" else held.to_jwks()).decode().rstrip("\n")
    return Shown(text, [held.trust_domain.name], lambda: text)


@bundle.command("list")
@ca_socket_option
@timeout_option
@output_option
@watchable
def list_(ca_socket: str, timeout: timedelta) -> Shown:
    """List the bundles the CA holds: its own and those of federated trust domains."""
    with channel(ca_at(ca_socket)) as opened:
        stub = bundle_api.BundleStub(opened)
        held: list[types_api.Bundle] = [stub.GetBundle(bundle_api.GetBundleRequest(), timeout=seconds(timeout))]
    return several([_row(bundle_from_wire(wire)) for wire in held], VIEW)
