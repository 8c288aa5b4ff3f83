"""How a list is asked for: pages by row id, and sets matched in the four ways of the SPIRE API.

Owns: `Page`, `Listing`, `Match` and the two set matches. Does not own: the SQL that carries them out (`store`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from livery.identity import Selector, TrustDomain

Item = TypeVar("Item")


class Match(Enum):
    """How a stored set is held against a given one (SPIRE `SelectorMatch.MatchBehavior`, same numbers).

    A stored set without members matches nothing, in any of the four ways.
    """

    EXACT = 0  # the stored set equals the given one
    SUBSET = 1  # the stored set lies within the given one
    SUPERSET = 2  # the stored set contains the given one
    ANY = 3  # the two have a member in common


@dataclass(frozen=True, slots=True)
class SelectorMatch:
    """Selectors to match; never empty (the doors refuse an empty set)."""

    selectors: frozenset[Selector]
    match: Match


@dataclass(frozen=True, slots=True)
class DomainMatch:
    """Trust domains to match; never empty."""

    trust_domains: frozenset[TrustDomain]
    match: Match


@dataclass(frozen=True, slots=True)
class Page:
    """At most `size` rows (0 = all of them) that come after row `after`."""

    size: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """One page. `last_row` is the row id of its last item: the next page's `after`; None when the page is empty."""

    items: tuple[Item, ...]
    last_row: int | None
