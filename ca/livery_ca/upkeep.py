"""What an authority does by itself, at intervals: forget what has ended, and look whether all is well.

Owns: the intervals and the order. Does not own: rotating authorities (`authorities`), following changes (`catalog`),
the server's own certificate (`server_svid`); each of those runs its own loop.

Invariants: a failure is told and tried again at the next interval; it never ends the loop. Nothing is forgotten that
has not surely ended, whatever the wall clock says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from livery.errors import LiveryError
from livery.runtime.clock import Clock
from livery_ca.authorities import Authorities
from livery_ca.doors.guard.limits import Limits
from livery_ca.health import Health, Trouble
from livery_ca.issuance.pipeline import Issuer
from livery_ca.issuance.timekeeping import TimeGuard
from livery_ca.keys import KeyStore
from livery_ca.server_svid import ServerIdentity
from livery_ca.store import Store

_log = structlog.stdlib.get_logger(__name__)

LOOK = timedelta(seconds=5)
PRUNE = timedelta(minutes=5)
FEED_KEPT = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class UpkeepParts:
    """Whom the upkeep looks after."""

    store: Store
    keys: KeyStore
    guard: TimeGuard
    authorities: Authorities
    issuer: Issuer
    identity: ServerIdentity
    limits: Limits
    health: Health
    clock: Clock
    journal_kept: timedelta


class Upkeep:
    """The two loops."""

    def __init__(self, parts: UpkeepParts) -> None:
        self._parts = parts

    async def look(self) -> None:
        """Report what is wrong: with the store, the keys, the clock, the authorities, and with issuing by all that."""
        parts = self._parts
        fault = parts.store.fault
        parts.health.report("store", None if fault is None else Trouble(str(fault), failing=True))
        parts.health.report("keys", _trouble(await asyncio.to_thread(parts.keys.health), failing=True))
        parts.health.report("clock", _trouble(parts.guard.problem))
        parts.health.report("authorities", _trouble(parts.authorities.fault))
        parts.health.report("issuing", _trouble(parts.issuer.problem, failing=True))
        parts.health.report("server_svid", _trouble(parts.identity.fault))
        parts.limits.forget_idle()
        await parts.issuer.count_unissued()

    async def prune(self) -> None:
        """Forget entries and tokens that have ended, changes that everybody has followed by now, and old issuances."""
        store, reached = self._parts.store, self._parts.guard.reached()
        counts = {
            "entries": await store.entries.prune(reached),
            "join_tokens": await store.tokens.prune(reached),
            "changes": await store.changes.prune(reached - FEED_KEPT),
            "issuances": await store.journal.prune(reached - self._parts.journal_kept),
        }
        if any(counts.values()):
            _log.info("pruned", **counts)

    async def run(self) -> None:
        """Look and prune at their intervals until cancelled."""
        pruned = self._parts.clock.monotonic()
        while True:
            await self._tried(self.look)
            if self._parts.clock.monotonic() - pruned >= PRUNE.total_seconds():
                pruned = self._parts.clock.monotonic()
                await self._tried(self.prune)
            await self._parts.clock.sleep(LOOK.total_seconds())

    async def _tried(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except LiveryError as error:
            self._parts.health.report("store", Trouble(str(error), failing=True))


def _trouble(why: str, *, failing: bool = False) -> Trouble | None:
    return Trouble(why, failing=failing) if why else None
