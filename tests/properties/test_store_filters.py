"""Filters of the store, carried out in SQL, agree with the plain meaning of sets, for any entries and any filter."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livery.identity import Selector, TrustBundle, TrustDomain
from livery_ca.model import DomainMatch, Entry, EntryFilter, Match, Node, NodeFilter, Page, SelectorMatch
from livery_ca.store import Store
from tests.fakes.clock import FakeClock
from tests.unit.ca.store.values import entry, node

# Few values, so that sets meet often; the value with a wildcard and the type that is another's beginning lure LIKE and
# string concatenation.
SELECTORS = [Selector(t, v) for t, v in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "%"), ("aa", "1"), ("a", "b:1"))]
DOMAINS = [TrustDomain(f"{c}.org") for c in "xyz"]

some_selectors = st.frozensets(st.sampled_from(SELECTORS), max_size=4)
some_domains = st.frozensets(st.sampled_from(DOMAINS), max_size=3)
matches = st.sampled_from(Match)


def plain(stored: frozenset[object], wanted: frozenset[object], match: Match) -> bool:
    """The meaning of the four matches, as in the SPIRE API; a set without members matches nothing."""
    meaning: dict[Match, Callable[[], bool]] = {
        Match.EXACT: lambda: stored == wanted,
        Match.SUBSET: lambda: stored <= wanted,
        Match.SUPERSET: lambda: stored >= wanted,
        Match.ANY: lambda: bool(stored & wanted),
    }
    return bool(stored) and meaning[match]()


async def listed(store: Store, wanted: EntryFilter, size: int) -> list[Entry]:
    """All pages of a list, one after the other."""
    found: list[Entry] = []
    after = 0
    while True:
        page = await store.entries.list(wanted, Page(size, after))
        found += page.items
        if page.last_row is None or size == 0:
            return found
        after = page.last_row


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(some_selectors.filter(bool), some_domains), max_size=8),
    st.lists(some_selectors, max_size=6),
    some_selectors.filter(bool),
    some_domains.filter(bool),
    matches,
    st.integers(0, 3),
)
def test_lists_hold_exactly_what_matches(
    sets: list[tuple[frozenset[Selector], frozenset[TrustDomain]]],
    node_sets: list[frozenset[Selector]],
    wanted: frozenset[Selector],
    domains: frozenset[TrustDomain],
    match: Match,
    size: int,
) -> None:
    """In the order of creation, whatever the page size; counts agree."""
    made = [
        replace(entry(f"e{i}"), selectors=tuple(sorted(s)), federates_with=tuple(sorted(d)))
        for i, (s, d) in enumerate(sets)
    ]
    nodes = [replace(node(f"n{i}"), selectors=tuple(sorted(s))) for i, s in enumerate(node_sets)]

    async def check() -> None:
        with tempfile.TemporaryDirectory() as directory:
            store = await Store.open(Path(directory) / "s" / "ca.sqlite", clock=FakeClock())
            try:
                await _fill(store, made, nodes)
                by_selectors = EntryFilter(selectors=SelectorMatch(wanted, match))
                expected = [e for e in made if plain(frozenset(e.selectors), wanted, match)]
                assert await listed(store, by_selectors, size) == expected
                assert await store.entries.count(by_selectors) == len(expected)
                by_domains = EntryFilter(federates_with=DomainMatch(domains, match))
                assert await listed(store, by_domains, size) == [
                    e for e in made if plain(frozenset(e.federates_with), domains, match)
                ]
                found = await store.nodes.list(NodeFilter(selectors=SelectorMatch(wanted, match)))
                assert list(found.items) == [n for n in nodes if plain(frozenset(n.selectors), wanted, match)]
            finally:
                await store.close()

    asyncio.run(check())


async def _fill(store: Store, entries: list[Entry], nodes: list[Node]) -> None:
    for domain in DOMAINS:
        await store.bundles.put(TrustBundle(domain))
    for made in entries:
        await store.entries.create(made)
    for attested in nodes:
        await store.nodes.attest(attested)
