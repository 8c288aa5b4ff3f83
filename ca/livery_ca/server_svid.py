"""The CA's own identity, `spiffe://<trust domain>/spire/server`, by which its doors are known.

Owns: when it is renewed (half life, or as soon as its authority is tainted or gone) and what a door reads at each
accept. Does not own: issuing, which goes through the same pipeline as everybody's.

Invariant: `svid()` and `bundles()` return the same object until there is another one, so that a door can tell a change
by identity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from livery.errors import LiveryError
from livery.identity import (
    BundleMap,
    IdentityError,
    SpiffeId,
    TrustBundle,
    TrustDomain,
    X509Svid,
    parse_chain,
    verify_x509,
)
from livery.runtime.clock import Clock
from livery_ca.authorities import Authorities
from livery_ca.certificates import algorithm
from livery_ca.certificates.algorithm import KeyType
from livery_ca.certificates.profile import Profile
from livery_ca.issuance.pipeline import Issuer
from livery_ca.issuance.request import IssueRequest, Refused

TICK = timedelta(seconds=5)
SERVER_PATH = "/spire/server"
_log = structlog.get_logger("livery.ca.server_svid")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Who the server is, and for how long each of its certificates lives."""

    trust_domain: TrustDomain
    ttl: timedelta = timedelta(hours=1)


class ServerIdentity:
    """A `DoorIdentity`. `start` it, then `run` it.

    `foreign` gives the bundles of the trust domains whose administrators may call, and of no others: what is in the
    bundles of a door can have a TLS connection.
    """

    def __init__(
        self,
        issuer: Issuer,
        authorities: Authorities,
        clock: Clock,
        settings: ServerSettings,
        foreign: Callable[[], Sequence[TrustBundle]] = tuple,
    ) -> None:
        self._issuer = issuer
        self._authorities = authorities
        self._clock = clock
        self._settings = settings
        self._foreign = foreign
        self._svid: X509Svid | None = None
        self._renew_at = clock.now()
        self._bundles: tuple[tuple[TrustBundle, ...], BundleMap] | None = None
        self.fault = ""

    async def start(self) -> None:
        """Get the first certificate. Raises why there is none."""
        await self._renew()

    async def tick(self) -> None:
        """Renew what is due. A failure is told (`fault`, log) and tried again at the next tick."""
        if self._svid is not None and not self._due(self._svid):
            return
        try:
            await self._renew()
            self.fault = ""
        except LiveryError as error:
            self.fault = str(error)
            _log.warning("server_svid.not_renewed", error=str(error), fix=error.fix)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self._clock.sleep(TICK.total_seconds())
            await self.tick()

    def svid(self) -> X509Svid:
        """The server's certificate and key."""
        assert self._svid is not None, "a server identity is started before its doors"
        return self._svid

    def bundles(self) -> BundleMap:
        """Our bundle and those of the foreign administrators' trust domains."""
        held = (self._authorities.current_bundle(), *self._foreign())
        if self._bundles is None or not _same(self._bundles[0], held):
            self._bundles = (held, BundleMap.of(*held))
        return self._bundles[1]

    def _due(self, svid: X509Svid) -> bool:
        return self._clock.now() >= self._renew_at or self._untrusted(svid)

    def _untrusted(self, svid: X509Svid) -> bool:
        """Whether its authority was tainted, or has left the bundle."""
        try:
            verified = verify_x509(svid.chain, self._authorities.bundles(), self._clock.now())
        except IdentityError:
            return True
        anchors = self._authorities.current_bundle().x509_authorities
        return any(anchor.tainted for anchor in anchors if anchor.certificate == verified.authority)

    async def _renew(self) -> None:
        key = await asyncio.to_thread(algorithm.generate, KeyType.EC_P256)
        asked_at = self._clock.now()
        request = IssueRequest(
            profile=Profile.SERVER,
            spiffe_id=SpiffeId.of(self._settings.trust_domain, SERVER_PATH),
            public_key=key.public_key(),
            ttl=self._settings.ttl,
            asked_by="the authority itself",
            authorized_by="server",
        )
        (answer,) = await self._issuer.issue([request])
        if isinstance(answer, Refused):
            raise answer.error
        self._svid = X509Svid.of(parse_chain(b"".join(answer.chain_ders)), key)
        self._renew_at = _half_life(asked_at, answer.not_after)
        _log.info("server_svid.renewed", serial=f"{answer.serial:x}", not_after=answer.not_after.isoformat())


def _half_life(issued_at: datetime, not_after: datetime) -> datetime:
    """Counted from the issue, so that the backdate of NotBefore is ignored."""
    return issued_at + (not_after - issued_at) / 2


def _same(before: Sequence[TrustBundle], now: Sequence[TrustBundle]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))
