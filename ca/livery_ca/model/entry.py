"""A registration entry: which workload (by selectors, under which parent) may have which SPIFFE ID, and how.

Owns: `Entry`, `EntryFilter`. Does not own: which entries a node or caller is entitled to (`entries.entitlement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from livery.identity import Selector, SpiffeId, TrustDomain
from livery_ca.model.listing import DomainMatch, SelectorMatch


@dataclass(frozen=True, slots=True)
class Entry:
    """One registration entry, in the fields of `spire.api.types.Entry`.

    `selectors` are unique and sorted, so that equal sets are equal tuples (`canonical_selectors`). A TTL of None means
    the authority's default. `revision_number` counts updates from 0.
    """

    id: str
    spiffe_id: SpiffeId
    parent_id: SpiffeId
    selectors: tuple[Selector, ...]
    created_at: datetime
    x509_svid_ttl: timedelta | None = None
    jwt_svid_ttl: timedelta | None = None
    federates_with: tuple[TrustDomain, ...] = ()
    admin: bool = False
    downstream: bool = False
    expires_at: datetime | None = None
    dns_names: tuple[str, ...] = ()
    revision_number: int = 0
    store_svid: bool = False
    hint: str = ""
    disable_x509_svid_prefetch: bool = False
    jwt_svid_include_jti: bool = False

    @property
    def selector_set(self) -> frozenset[Selector]:
        """The selectors as a set, for matching."""
        return frozenset(self.selectors)

    def expired(self, at: datetime) -> bool:
        """Whether the entry has an end and it has passed."""
        return self.expires_at is not None and self.expires_at <= at


def canonical_selectors(selectors: Sequence[Selector]) -> tuple[Selector, ...]:
    """Unique and sorted: the one order in which an entry or a node holds its selectors."""
    return tuple(sorted(set(selectors)))


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """What a list of entries is narrowed by; None (or False) leaves a field open. Fields given hold together (and)."""

    spiffe_id: SpiffeId | None = None
    parent_id: SpiffeId | None = None
    selectors: SelectorMatch | None = None
    federates_with: DomainMatch | None = None
    hint: str | None = None
    only_downstream: bool = False
