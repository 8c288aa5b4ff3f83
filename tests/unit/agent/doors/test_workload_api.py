"""The Workload API's bounds, where its callers have not even been looked at yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from livery.identity import BundleMap, Selector, SpiffeId, TrustDomain
from livery.runtime.caller import Caller, PeerProcess, calling
from livery.wire import workload_api
from livery_agent.attest.workload.attestation import WorkloadAttestation
from livery_agent.doors.places import Places, TooManyCalls
from livery_agent.doors.workload_api import DoorParts, NotAvailable, WorkloadApi
from livery_agent.errors import CaRefused
from livery_agent.identities.entry import Entry
from livery_agent.identities.jwt_svids import JwtSvids
from livery_agent.identities.snapshot import Identity, Snapshot, Snapshots
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock, settle

CONNECTION = "/run/connection"
TD = TrustDomain("example.org")
UID = Selector.parse("unix:uid:1000")


def somebody() -> Any:
    return calling(Caller(CONNECTION, "unix", process=PeerProcess(1, 1000, 1000, -1, 1)))


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


class Finds:
    """An attestor that finds one user's processes."""

    method = "finds"

    async def attest(self, process: object) -> Any:
        return frozenset({UID})


@dataclass
class Declines:
    """A source of tokens that declines one entry, and never answers for another."""

    asked: list[str] = field(default_factory=list)

    async def jwt_svid(self, entry_id: str, audience: object) -> Any:
        self.asked.append(entry_id)
        if entry_id == "declined":
            raise CaRefused("the JWT-SVID could not be fetched", why="policy says no")
        await asyncio.Event().wait()


def api(places: Places, attestor: Any = None, jwt_svids: Any = None, *entries: Entry) -> Any:
    clock: Any = FakeClock()
    snapshot = Snapshot(TD, BundleMap(), tuple(map(Identity, entries)), synced=True)
    return WorkloadApi(
        DoorParts(
            snapshots=Snapshots(snapshot),
            jwt_svids=jwt_svids,
            attestation=WorkloadAttestation((attestor or Hangs(),)),
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
    with somebody():
        waiting = asyncio.create_task(call(request_, Context()))
        await settle()
        assert len(places) == 1
        with pytest.raises(TooManyCalls):
            await call(request_, Context())
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert len(places) == 0


async def test_once_one_token_of_several_is_declined_the_others_are_asked_for_no_longer():
    """The call has failed; and whoever makes it again and again must not leave more and more requests behind."""
    places, source = Places("calls", 1, 1), Declines()
    jwt_svids = JwtSvids(source, 1, FakeClock(), lambda: 0.5)
    entries = [Entry(name, SpiffeId.of(TD, f"/{name}"), frozenset({UID})) for name in ("slow", "declined")]
    with somebody(), pytest.raises(NotAvailable, match="policy says no"):
        await api(places, Finds(), jwt_svids, *entries).FetchJWTSVID(
            workload_api.JWTSVIDRequest(audience=["a"]), Context()
        )
    await settle()
    assert sorted(source.asked) == ["declined", "slow"]
    assert len(jwt_svids._under_way) == 0
    assert len(places) == 0
