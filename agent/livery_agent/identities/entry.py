"""An entry as this node knows it: whom it describes (selectors) and which identity that one may have.

Owns: `Entry`, the stable order of entries, and which of them a workload matches. Pure.
Does not own: what the CA puts into the SVID (TTL, DNS names); that is the entry's other half, and stays at the CA.

Invariants: an entry without selectors matches nobody; an entry whose SVID is meant for a store is served to nobody; the
order does not change when an entry is added or updated, so a workload's default identity (the first) stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from livery.identity import Selector, SpiffeId, TrustDomain

MAX_HINT = 1024  # bytes (SPIFFE Workload API 8: longer hints SHOULD NOT be supported)


@dataclass(frozen=True, slots=True)
class Entry:
    """One registration entry this node is authorized for. `created_at` is in seconds since the epoch, 0 if unknown."""

    id: str
    spiffe_id: SpiffeId
    selectors: frozenset[Selector]
    revision: int = 0
    created_at: int = 0
    federates_with: tuple[TrustDomain, ...] = ()
    hint: str = ""
    admin: bool = False
    downstream: bool = False
    store_svid: bool = False

    @property
    def rank(self) -> tuple[int, str]:
        """The stable order: oldest first, then by ID."""
        return (self.created_at, self.id)

    @property
    def edition(self) -> tuple[str, int, int]:
        """What an SVID was made for; a change asks for a new one. IDs come back after a deletion: hence the birth."""
        return (self.id, self.revision, self.created_at)

    def describes(self, attested: frozenset[Selector]) -> bool:
        """Whether every selector of the entry was attested (subset rule). No selectors describe nobody."""
        return bool(self.selectors) and self.selectors <= attested and not self.store_svid


def matching(entries: Iterable[Entry], attested: frozenset[Selector]) -> tuple[Entry, ...]:
    """The entries that describe a workload, oldest first; of those with the same hint only the oldest keeps its place.

    Hints are unique within one answer (SPIFFE Workload API 8), and an empty hint is no hint.
    """
    taken: set[str] = set()
    kept = []
    for entry in sorted((e for e in entries if e.describes(attested)), key=lambda e: e.rank):
        if entry.hint and entry.hint in taken:
            continue
        taken.add(entry.hint)
        kept.append(entry)
    return tuple(kept)


def with_served_hint(entry: Entry) -> Entry:
    """The entry as it is served: a hint over the limit is no hint."""
    return replace(entry, hint="") if len(entry.hint.encode()) > MAX_HINT else entry
