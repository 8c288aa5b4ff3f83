"""A whole authority without its doors, for tests: store, keys, authorities, issuer, on a clock of the test's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from livery.identity import SpiffeId, TrustDomain
from livery.runtime.clock import Clock
from livery.runtime.metrics import Metrics
from livery_ca.authorities import Authorities, AuthorityParts, AuthoritySettings
from livery_ca.certificates import algorithm
from livery_ca.certificates.algorithm import KeyType
from livery_ca.certificates.profile import Profile, new_serial
from livery_ca.issuance.jwt import JwtIssuer
from livery_ca.issuance.pipeline import Checkpoint, Issuer, IssuerParts
from livery_ca.issuance.request import Issued, IssueRequest, JwtRequest, Refused
from livery_ca.issuance.timekeeping import TimeGuard
from livery_ca.issuance.workers import Workers
from livery_ca.keys import KeyStore
from livery_ca.keys.disk import DiskKeyStore
from livery_ca.store import Store
from livery_ca.upstreams import Upstream
from livery_ca.upstreams.self_signed import SelfSigned
from tests.fakes.audit import RecordingAudit

TD = TrustDomain("example.org")
SETTINGS = AuthoritySettings(TD)


@dataclass(frozen=True)
class House:
    """The parts of a running authority."""

    store: Store
    keys: KeyStore
    guard: TimeGuard
    authorities: Authorities
    issuer: Issuer
    jwt_issuer: JwtIssuer
    metrics: Metrics
    audit: RecordingAudit

    async def issue(self, *requests: IssueRequest) -> list[Issued]:
        """Issue, and fail the test if an item is refused."""
        answers = await self.issuer.issue(requests)
        refused = [answer.error for answer in answers if isinstance(answer, Refused)]
        assert not refused, refused
        return [answer for answer in answers if isinstance(answer, Issued)]


@asynccontextmanager
async def house(
    state: Path,
    clock: Clock,
    *,
    settings: AuthoritySettings = SETTINGS,
    keys: KeyStore | None = None,
    upstream: Callable[[KeyStore], Upstream] = SelfSigned,
    checkpoint: Checkpoint = lambda _: None,
    serials: Callable[[], int] = new_serial,
    jwt_issuer: str | None = None,
) -> AsyncIterator[House]:
    """Start an authority on the state directory, as `main` would, and stop it in order."""
    metrics, audit, workers = Metrics(), RecordingAudit(), Workers()
    keys = keys or DiskKeyStore.open(state / "keys", state / "key-encryption.key")
    store = await Store.open(state / "ca.sqlite", clock=clock)
    try:
        guard = TimeGuard(clock, await store.journal.last_time())
        parts = AuthorityParts(store.authorities, keys, upstream(keys), clock, guard, metrics, audit)
        authorities = Authorities(parts, settings)
        await authorities.start()
        shared = IssuerParts(store.journal, keys, authorities, guard, workers, metrics)
        issuer = Issuer(shared, checkpoint=checkpoint, serials=serials)
        await issuer.start()
        yield House(store, keys, guard, authorities, issuer, JwtIssuer(shared, jwt_issuer), metrics, audit)
        await issuer.close()
    finally:
        await workers.close()
        await store.close()


def workload(path: str = "/w", **changes: Any) -> IssueRequest:
    """A request for a workload's certificate with a fresh key."""
    request = IssueRequest(
        profile=Profile.WORKLOAD,
        spiffe_id=SpiffeId.of(TD, path),
        public_key=algorithm.generate(KeyType.EC_P256).public_key(),
        ttl=timedelta(hours=1),
        asked_by="spiffe://example.org/spire/agent/x",
    )
    return replace(request, **changes)


def token(path: str = "/w", **changes: Any) -> JwtRequest:
    """A request for a workload's token."""
    request = JwtRequest(
        SpiffeId.of(TD, path), ("audience",), timedelta(minutes=5), "spiffe://example.org/spire/agent/x"
    )
    return replace(request, **changes)
