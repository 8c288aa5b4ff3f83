"""Issued certificates and tokens as `types.X509SVID` and `types.JWTSVID`.

Owns: these forms. Does not own: what is issued. Times go over the wire in whole seconds.
"""

from __future__ import annotations

from livery.runtime.spire_types import spiffe_id_to_wire
from livery.wire import types_api
from livery_ca.issuance.request import Issued, IssuedJwt


def x509_to_wire(issued: Issued) -> types_api.X509SVID:
    """A certificate with its chain, leaf first, without the root."""
    return types_api.X509SVID(
        cert_chain=issued.chain_ders,
        id=spiffe_id_to_wire(issued.spiffe_id),
        expires_at=int(issued.not_after.timestamp()),
    )


def jwt_to_wire(issued: IssuedJwt) -> types_api.JWTSVID:
    """A token."""
    return types_api.JWTSVID(
        token=issued.token,
        id=spiffe_id_to_wire(issued.spiffe_id),
        expires_at=int(issued.expires_at.timestamp()),
        issued_at=int(issued.issued_at.timestamp()),
    )
