"""The Workload API's bounds, where its callers have not even been looked at yet."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from livery.identity import BundleMap, TrustDomain
from livery.runtime.caller import Caller, PeerProcess, calling
from livery.wire import workload_api
from livery_agent.attest.workload.attestation import WorkloadAttestation
from livery_agent.doors.places import Places, TooManyCalls
from livery_agent.doors.workload_api import DoorParts, WorkloadApi
from livery_agent.identities.jwt_svids import JwtSvids
from livery_agent.identities.snapshot import Snapshot, Snapshots
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock, settle

CONNECTION = "/run/connection"


class Hangs:
    """An attestor that does not come back."""

    method = "hangs"

    async def attest(self, process: object) -> Any:
        await asyncio.Event().wait()


class Context:
    def peer(self) -> str:
        return f"unix:{CONNECTION}"

    def invocation_metadata(self) -> Any:
        return (("workload.spiffe.io", "true"),)


def api(places: Places) -> Any:
    clock: Any = FakeClock()
    source: Any = None
    return WorkloadApi(
        DoorParts(
            snapshots=Snapshots(Snapshot(TrustDomain("example.org"), BundleMap())),
            jwt_svids=JwtSvids(source, 1, clock, lambda: 0.5),
            attestation=WorkloadAttestation((Hangs(),)),
            streams=places,
            requests=places,
            clock=clock,
            audit=RecordingAudit(),
            strangers=False,
            write_timeout=timedelta(seconds=1),
        )
    )


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("FetchX509SVID", workload_api.X509SVIDRequest()),
        ("FetchX509Bundles", workload_api.X509BundlesRequest()),
        ("FetchJWTBundles", workload_api.JWTBundlesRequest()),
        ("FetchJWTSVID", workload_api.JWTSVIDRequest(audience=["a"])),
        ("ValidateJWTSVID", workload_api.ValidateJWTSVIDRequest(audience="a", svid="x.y.z")),
    ],
)
async def test_a_call_holds_a_place_while_its_caller_is_looked_at(rpc: str, request_: Any):
    """Calls cost their maker nothing, and a look takes a while: what waits for one must not fill our memory."""
    places = Places("calls", 1, 1)
    call = getattr(api(places), rpc)
    with calling(Caller(CONNECTION, "unix", process=PeerProcess(1, 1000, 1000, -1, 1))):
        waiting = asyncio.create_task(call(request_, Context()))
        await settle()
        assert len(places) == 1
        with pytest.raises(TooManyCalls):
            await call(request_, Context())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert len(places) == 0
