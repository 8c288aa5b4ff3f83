"""The way out: grpcio dials a private socket, and the TLS connection behind it is ours.

Owns: the TLS client connection, the check that the peer is exactly the expected SPIFFE ID, and the last refusal. Does
not own: retries and back-off (grpcio's).

Invariants: not one byte from gRPC leaves before the peer's chain was verified and its ID compared; a connection
counts as made at the peer's first byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import grpc.aio

from livery.identity import BundleMap, SpiffeId, X509Svid
from livery.runtime.clock import Clock


@dataclass(eq=False)
class Dialer:
    """One address and the identity expected there. `identity` and `bundles` are asked at every dial."""

    _: KW_ONLY
    address: str
    expected: SpiffeId
    identity: Callable[[], X509Svid | None]
    bundles: Callable[[], BundleMap]
    run_dir: Path
    clock: Clock

    async def start(self) -> grpc.aio.Channel:
        """Return a channel to the address; it connects when first used."""
        return grpc.aio.insecure_channel("")

    async def close(self) -> None:
        """Close the channel and every connection."""

    @property
    def last_refusal(self) -> str | None:
        """Why the last dial failed; None once a peer has answered."""
        return None
