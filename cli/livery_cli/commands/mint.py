"""`livery mint`: an SVID from the CA, as an administrator.

Owns: the command forms, and the new key of an X.509-SVID: it is made here, written 0600 or printed, and never sent.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from livery.identity import SpiffeId
from livery.wire import bundle_api, svid_api
from livery_cli.commands.svid_files import pem, write_svid
from livery_cli.peers.client import BadRequest, ca_at, channel, seconds
from livery_cli.peers.live_ids import complete_spiffe_id
from livery_cli.peers.wire_text import id_from_wire, id_to_wire
from livery_cli.terminal.options import TTL, ca_socket_option, output_option, timeout_option
from livery_cli.terminal.output import View, at, show_one

X509_VIEW = View({"spiffe_id": "SPIFFE ID", "expires_at": "EXPIRES"}, name="spiffe_id")
JWT_VIEW = View({"token": "TOKEN"}, name="token")


@click.group()
def mint() -> None:
    """Mint an SVID from the CA, as an administrator."""


def _request(spiffe_id: SpiffeId, dns_names: tuple[str, ...], key: ec.EllipticCurvePrivateKey) -> bytes:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    try:
        names += [x509.DNSName(name) for name in dns_names]
    except ValueError as error:
        raise BadRequest(
            "a DNS name is not in ASCII",
            why="certificates hold names as resolvers ask for them",
            fix="write its xn-- form",
        ) from error
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@mint.command("x509")
@click.argument("spiffe_id", shell_complete=complete_spiffe_id)
@click.option("--ttl", type=TTL, help="Its life; the CA's default if left out.")
@click.option("--dns", "dns_names", multiple=True, help="A DNS name in the certificate; repeat for each.")
@click.option("--write", "directory", type=click.Path(file_okay=False, path_type=Path), help="Write the files there.")
@ca_socket_option
@timeout_option
@output_option
def mint_x509(
    spiffe_id: str,
    ttl: timedelta | None,
    dns_names: tuple[str, ...],
    directory: Path | None,
    ca_socket: str,
    timeout: timedelta,
    output: str,
) -> None:
    """Mint an X.509-SVID for SPIFFE_ID with a new P-256 key."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = _request(SpiffeId.parse(spiffe_id), dns_names, key)
    request = svid_api.MintX509SVIDRequest(csr=csr, ttl=int(ttl.total_seconds()) if ttl else 0)
    with channel(ca_at(ca_socket)) as opened:
        # First what may be asked for twice: nothing is minted that is then not shown.
        bundle = bundle_api.BundleStub(opened).GetBundle(bundle_api.GetBundleRequest(), timeout=seconds(timeout))
        minted = svid_api.SVIDStub(opened).MintX509SVID(request, timeout=seconds(timeout)).svid
    row: dict[str, object] = {"spiffe_id": id_from_wire(minted.id), "expires_at": at(minted.expires_at)}
    key_der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if directory is not None:
        authorities = [each.asn1 for each in bundle.x509_authorities]
        row |= write_svid(directory, list(minted.cert_chain), key_der, authorities)
    else:
        row |= {"chain": "".join(pem("CERTIFICATE", der) for der in minted.cert_chain)}
        row |= {"key": pem("PRIVATE KEY", key_der)}
    show_one(row, X509_VIEW, output)


@mint.command("jwt")
@click.argument("spiffe_id", shell_complete=complete_spiffe_id)
@click.option("--audience", "audiences", multiple=True, required=True, help="Whom it is for; repeat for each.")
@click.option("--ttl", type=TTL, help="Its life; the CA's default if left out.")
@ca_socket_option
@timeout_option
@output_option
def mint_jwt(
    spiffe_id: str, audiences: tuple[str, ...], ttl: timedelta | None, ca_socket: str, timeout: timedelta, output: str
) -> None:
    """Mint a JWT-SVID for SPIFFE_ID."""
    request = svid_api.MintJWTSVIDRequest(
        id=id_to_wire(spiffe_id), audience=audiences, ttl=int(ttl.total_seconds()) if ttl else 0
    )
    with channel(ca_at(ca_socket)) as opened:
        minted = svid_api.SVIDStub(opened).MintJWTSVID(request, timeout=seconds(timeout)).svid
    row = {"token": minted.token, "spiffe_id": id_from_wire(minted.id), "expires_at": at(minted.expires_at)}
    show_one(row, JWT_VIEW, output)
