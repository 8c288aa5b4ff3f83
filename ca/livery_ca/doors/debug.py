"""The Debug service: what this authority is and how much it holds, for administrators on the machine.

Owns: `spire.api.server.debug.v1.Debug`. Invariant: the counting is done once in five seconds at most, however often
somebody asks.
"""
# ruff: noqa: N802, ARG002 - methods and parameters are the wire's

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cryptography.x509.oid import NameOID
from grpc.aio import ServicerContext

from livery.identity import IdentityError, verify_x509
from livery.runtime.clock import Clock
from livery.runtime.spire_types import spiffe_id_to_wire
from livery.runtime.transport.listen import DoorIdentity
from livery.wire import debug_api, types_api
from livery_ca.doors.refusals import Failed, failing
from livery_ca.store import Store

Context = ServicerContext[Any, Any]

FRESH_SECONDS = 5.0
_GO_NAMES = {NameOID.SERIAL_NUMBER: "SERIALNUMBER"}  # SPIRE's command prints the subject as Go writes it


@dataclass(slots=True)
class DebugDoor(debug_api.DebugServicer):
    """Answers what this authority is doing."""

    store: Store
    identity: DoorIdentity
    clock: Clock
    started: float
    _known: tuple[float, debug_api.GetInfoResponse] | None = field(default=None, init=False)

    async def GetInfo(self, request: debug_api.GetInfoRequest, context: Context) -> debug_api.GetInfoResponse:
        """The server's own certificates, its uptime, and the numbers of agents, entries and bundles."""
        now = self.clock.monotonic()
        if self._known is not None and now - self._known[0] < FRESH_SECONDS:
            return self._known[1]
        with failing("failed to count"):
            info = debug_api.GetInfoResponse(
                svid_chain=self._certificates(),
                uptime=int(now - self.started),
                agents_count=await self.store.nodes.count(),
                entries_count=await self.store.entries.count(),
                federated_bundles_count=await self.store.bundles.count(),
            )
        self._known = (now, info)
        return info

    def _certificates(self) -> list[debug_api.GetInfoResponse.Cert]:
        """From our own certificate up to the authority in the bundle: as an administrator compares it with agents."""
        try:
            verified = verify_x509(self.identity.svid().chain, self.identity.bundles(), self.clock.now())
        except IdentityError as cause:  # ours, and not the caller's
            raise Failed("the server's own certificate does not verify at this time", why=str(cause)) from cause
        ours = types_api.SPIFFEID(trust_domain=verified.id.trust_domain.name)
        return [
            debug_api.GetInfoResponse.Cert(
                id=spiffe_id_to_wire(verified.id) if number == 0 else ours,
                expires_at=int(cert.not_valid_after_utc.timestamp()),
                subject=cert.subject.rfc4514_string(_GO_NAMES),
            )
            for number, cert in enumerate((*verified.chain, verified.authority))
        ]
