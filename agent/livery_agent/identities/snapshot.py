"""The one coherent truth on a node: which identities there are, their SVIDs, and whom to trust.

Owns: `Identity`, `Snapshot` (frozen values) and `Snapshots`, the place where the keeper puts a new one and readers wait
for it. Does not own: how a snapshot comes about (`keeper`) or who may see which part of it (`doors`).

Invariants:
- One writer. Readers take the whole value and never see an SVID beside a bundle of another moment.
- There is no queue. A reader that was away sees the latest snapshot and none of those in between, so a slow reader
  costs nothing and holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from livery.identity import BundleMap, Selector, TrustBundle, TrustDomain, X509Svid
from livery_agent.identities.entry import Entry, matching
from livery_agent.schedule import Renewal


@dataclass(frozen=True, slots=True)
class Identity:
    """An entry and the SVID held for it, if there is one.

    `made_for` is the edition of the entry the SVID was issued for. `refusal` is why the last attempt to have it signed
    failed. An identity that the CA declines to sign for, and without an SVID, is not waited for; one whose failure is
    `passing` is, by whoever it is the default identity of.
    """

    entry: Entry
    svid: X509Svid | None = None
    renewal: Renewal | None = None
    made_for: tuple[str, int, int] | None = None
    refusal: str = ""
    passing: bool = False

    def is_usable(self, now: datetime) -> bool:
        """Whether there is an SVID and it has not expired."""
        return self.svid is not None and self.renewal is not None and not self.renewal.is_over(now)

    @property
    def is_stale(self) -> bool:
        """Whether the SVID is missing, or was made for an earlier edition of the entry."""
        return self.made_for != self.entry.edition

    @property
    def is_pending(self) -> bool:
        """Whether an SVID is on its way for the first time."""
        return self.svid is None and not self.refusal

    @property
    def is_declined(self) -> bool:
        """Whether there is no SVID and, as the CA says, none to come."""
        return self.svid is None and bool(self.refusal) and not self.passing


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a door needs to answer, at one moment. `synced` says whether the CA has told us our entries yet."""

    trust_domain: TrustDomain
    bundles: BundleMap
    identities: tuple[Identity, ...] = ()
    synced: bool = False
    version: int = 0
    _filed: dict[Selector, list[Identity]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def bundle(self) -> TrustBundle | None:
        """The bundle of our own trust domain, once known."""
        return self.bundles.get(self.trust_domain)

    def matching(self, attested: frozenset[Selector]) -> tuple[Identity, ...]:
        """The identities of a workload with these selectors, its default one first."""
        if not self._filed:
            self._filed.update(_filed(self.identities))
        held = {i.entry.id: i for selector in attested for i in self._filed.get(selector, ())}
        return tuple(held[entry.id] for entry in matching((i.entry for i in held.values()), attested))


def _filed(identities: Sequence[Identity]) -> dict[Selector, list[Identity]]:
    """Each identity under the rarest of its selectors, so that not every stream is held against every entry."""
    often = Counter(selector for identity in identities for selector in identity.entry.selectors)
    filed: defaultdict[Selector, list[Identity]] = defaultdict(list)
    for identity in identities:
        if identity.entry.selectors:
            filed[min(identity.entry.selectors, key=often.__getitem__)].append(identity)
    return filed


def merged(held: Iterable[Identity], entries: Iterable[Entry]) -> tuple[Identity, ...]:
    """The identities for these entries, oldest entry first; each keeps the SVID it has, if that names the same ID."""
    known = {identity.entry.id: identity for identity in held}
    served = sorted((entry for entry in entries if not entry.store_svid), key=lambda entry: entry.rank)
    return tuple(_carried_over(known.get(entry.id), entry) for entry in served)


def _carried_over(before: Identity | None, entry: Entry) -> Identity:
    if before is None or before.entry.spiffe_id != entry.spiffe_id or before.entry.created_at != entry.created_at:
        return Identity(entry)
    refusal = before.refusal if before.entry.edition == entry.edition else ""
    return replace(before, entry=entry, refusal=refusal)


@dataclass(slots=True)
class Snapshots:
    """Where the current snapshot stands. `publish` is the keeper's; everybody else reads and follows."""

    current: Snapshot
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the current snapshot and wake whoever follows; it gets the next version number."""
        self.current = replace(snapshot, version=self.current.version + 1)
        # Every waiter of this version is woken at once; who comes later waits for the next one.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncGenerator[Snapshot, None]:
        """The current snapshot at once, then each time the latest after a change; never the same twice."""
        seen = -1
        while True:
            changed = self._changed
            if self.current.version == seen:
                await changed.wait()
                continue
            seen = self.current.version
            yield self.current
