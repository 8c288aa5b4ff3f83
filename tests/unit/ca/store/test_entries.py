"""Registration entries: what the store keeps, what it refuses, and how it lists."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from livery.identity import TrustBundle, TrustDomain
from livery_ca.model import DomainMatch, EntryFilter, Match, Page, SelectorMatch
from livery_ca.store import Store
from livery_ca.store.errors import EntryIdTaken, EntryNotFound, SimilarEntry, UnknownFederatedDomain
from tests.fakes.clock import START, FakeClock
from tests.unit.ca.store.values import AGENT, entry, selectors, sid

OTHER = TrustDomain("other.org")


async def test_an_entry_comes_back_as_it_was_created(store: Store) -> None:
    """Every field survives, selectors sorted and unique."""
    await store.bundles.put(TrustBundle(OTHER))
    made = entry(
        "a",
        "unix:uid:2",
        "unix:gid:1",
        "unix:uid:2",
        x509_svid_ttl=timedelta(minutes=7),
        jwt_svid_ttl=timedelta(seconds=30),
        federates_with=(OTHER,),
        admin=True,
        downstream=True,
        expires_at=START + timedelta(days=1),
        dns_names=("a.example.org", "b.example.org"),
        store_svid=True,
        hint="front",
        disable_x509_svid_prefetch=True,
        jwt_svid_include_jti=True,
    )
    created = await store.entries.create(made)
    assert created.selectors == selectors("unix:gid:1", "unix:uid:2")
    assert created == replace(made, selectors=created.selectors)
    assert await store.entries.get("a") == created


async def test_an_unknown_entry_is_none(store: Store) -> None:
    assert await store.entries.get("nobody") is None


async def test_a_similar_entry_is_refused_and_shown(store: Store) -> None:
    """Same SPIFFE ID, parent and selector set, whatever the order of the selectors and the entry's ID."""
    first = await store.entries.create(entry("a", "unix:uid:1", "unix:gid:1"))
    with pytest.raises(SimilarEntry) as refusal:
        await store.entries.create(entry("b", "unix:gid:1", "unix:uid:1", spiffe_id=first.spiffe_id, hint="x"))
    assert refusal.value.existing == first
    assert await store.entries.count() == 1


async def test_of_fifty_similar_entries_created_at_once_one_is_made(store: Store) -> None:
    """The uniqueness holds under a race."""
    rivals = (entry(f"e{i}", "unix:uid:1", spiffe_id=sid("/w")) for i in range(50))
    results = await asyncio.gather(*(store.entries.create(e) for e in rivals), return_exceptions=True)
    assert sum(isinstance(r, SimilarEntry) for r in results) == 49
    assert await store.entries.count() == 1


async def test_an_entry_id_is_taken_once(store: Store) -> None:
    await store.entries.create(entry("a", "unix:uid:1"))
    with pytest.raises(EntryIdTaken):
        await store.entries.create(entry("a", "unix:uid:2"))
    found = await store.entries.get("a")
    assert found is not None
    assert found.selectors == selectors("unix:uid:1")


async def test_an_entry_federates_only_with_domains_whose_bundle_is_here(store: Store) -> None:
    """The whole entry is refused; nothing of it stays."""
    with pytest.raises(UnknownFederatedDomain):
        await store.entries.create(entry("a", federates_with=(OTHER,)))
    assert await store.entries.count() == 0
    await store.bundles.put(TrustBundle(OTHER))
    await store.entries.create(entry("a", federates_with=(OTHER,)))


async def test_a_change_counts_the_revision_and_keeps_id_and_birth(store: Store) -> None:
    await store.entries.create(entry("a"))
    later = START + timedelta(days=1)
    changed = await store.entries.change("a", lambda e: replace(e, id="z", created_at=later, hint="new"))
    assert (changed.id, changed.created_at, changed.revision_number, changed.hint) == ("a", START, 1, "new")
    again = await store.entries.update(replace(changed, selectors=selectors("unix:uid:9")))
    assert again.revision_number == 2
    assert await store.entries.get("a") == again


async def test_concurrent_changes_lose_no_revision(store: Store) -> None:
    """Twenty changes at once are twenty revisions: each reads what the one before wrote."""
    await store.entries.create(entry("a"))
    await asyncio.gather(*(store.entries.change("a", lambda e: replace(e, hint=e.hint + "x")) for _ in range(20)))
    found = await store.entries.get("a")
    assert found is not None
    assert (found.revision_number, found.hint) == (20, "x" * 20)


async def test_a_change_cannot_make_two_entries_similar(store: Store) -> None:
    await store.entries.create(entry("a", "unix:uid:1", spiffe_id=sid("/w")))
    await store.entries.create(entry("b", "unix:uid:2", spiffe_id=sid("/w")))
    with pytest.raises(SimilarEntry):
        await store.entries.change("b", lambda e: replace(e, selectors=selectors("unix:uid:1")))
    found = await store.entries.get("b")
    assert found is not None
    assert (found.revision_number, found.selectors) == (0, selectors("unix:uid:2"))


async def test_changing_or_deleting_nothing_is_not_found(store: Store) -> None:
    with pytest.raises(EntryNotFound):
        await store.entries.change("a", lambda e: e)
    with pytest.raises(EntryNotFound):
        await store.entries.delete("a")


async def test_a_deleted_entry_is_gone_and_its_place_is_free(store: Store) -> None:
    made = await store.entries.create(entry("a"))
    assert await store.entries.delete("a") == made
    assert await store.entries.get("a") is None
    await store.entries.create(entry("b", spiffe_id=made.spiffe_id))


async def test_only_ended_entries_are_pruned(store: Store) -> None:
    await store.entries.create(entry("stays"))
    await store.entries.create(entry("ends", expires_at=START + timedelta(seconds=60)))
    assert await store.entries.prune(START + timedelta(seconds=59)) == 0
    assert await store.entries.prune(START + timedelta(seconds=60)) == 1
    assert [e.id for e in (await store.entries.list()).items] == ["stays"]


async def test_pages_cover_the_list_without_gap_or_repeat_though_rows_come_and_go(store: Store) -> None:
    """Paging is by row: what is deleted or added meanwhile moves nothing else."""
    for i in range(7):
        await store.entries.create(entry(f"e{i}"))
    first = await store.entries.list(page=Page(3))
    assert [e.id for e in first.items] == ["e0", "e1", "e2"]
    await store.entries.delete("e1")
    assert first.last_row is not None
    second = await store.entries.list(page=Page(3, first.last_row))
    await store.entries.create(entry("e7"))
    assert second.last_row is not None
    third = await store.entries.list(page=Page(3, second.last_row))
    assert [e.id for e in (*second.items, *third.items)] == ["e3", "e4", "e5", "e6", "e7"]
    assert third.last_row is not None
    end = await store.entries.list(page=Page(3, third.last_row))
    assert (end.items, end.last_row) == ((), None)


async def test_a_page_of_a_filtered_list_has_the_members_of_its_own_entries_only(store: Store) -> None:
    """Entries between the listed ones do not lend them their selectors."""
    for i in range(6):
        await store.entries.create(entry(f"e{i}", f"unix:uid:{i}", hint="even" if i % 2 == 0 else ""))
    listed = (await store.entries.list(EntryFilter(hint="even"))).items
    assert [e.selectors for e in listed] == [selectors(f"unix:uid:{i}") for i in (0, 2, 4)]


async def test_filters_narrow_by_each_field_and_hold_together(store: Store) -> None:
    await store.entries.create(entry("a", hint="h", downstream=True))
    await store.entries.create(entry("b", parent_id=sid("/spire/agent/x"), hint="h"))
    await store.entries.create(entry("c"))

    async def ids(wanted: EntryFilter) -> list[str]:
        found = [e.id for e in (await store.entries.list(wanted)).items]
        assert await store.entries.count(wanted) == len(found)
        return found

    assert await ids(EntryFilter(spiffe_id=sid("/a"))) == ["a"]
    assert await ids(EntryFilter(parent_id=AGENT)) == ["a", "c"]
    assert await ids(EntryFilter(hint="h")) == ["a", "b"]
    assert await ids(EntryFilter(hint="")) == ["c"]
    assert await ids(EntryFilter(only_downstream=True)) == ["a"]
    assert await ids(EntryFilter(only_downstream=False)) == ["a", "b", "c"]
    assert await ids(EntryFilter(hint="h", parent_id=AGENT)) == ["a"]
    assert await ids(EntryFilter(selectors=SelectorMatch(frozenset(selectors("unix:uid:7")), Match.ANY))) == []


async def test_entries_are_found_by_the_domains_they_federate_with(store: Store) -> None:
    third = TrustDomain("third.org")
    await store.bundles.put(TrustBundle(OTHER))
    await store.bundles.put(TrustBundle(third))
    await store.entries.create(entry("none"))
    await store.entries.create(entry("one", federates_with=(OTHER,)))
    await store.entries.create(entry("both", federates_with=(OTHER, third)))

    async def ids(match: Match, *domains: TrustDomain) -> list[str]:
        wanted = EntryFilter(federates_with=DomainMatch(frozenset(domains), match))
        return [e.id for e in (await store.entries.list(wanted)).items]

    assert await ids(Match.EXACT, OTHER) == ["one"]
    assert await ids(Match.SUBSET, OTHER, third) == ["one", "both"]
    assert await ids(Match.SUPERSET, OTHER) == ["one", "both"]
    assert await ids(Match.SUPERSET, OTHER, third) == ["both"]
    assert await ids(Match.ANY, third) == ["both"]


async def test_each_change_of_an_entry_is_in_the_feed(store: Store, clock: FakeClock) -> None:
    await store.entries.create(entry("a", expires_at=START))
    await store.entries.change("a", lambda e: replace(e, hint="x"))
    await store.entries.prune(START)
    feed = await store.changes.since(0)
    assert [(c.seq, c.kind, c.key, c.at) for c in feed.changes] == [(i, "entry", "a", clock.now()) for i in (1, 2, 3)]
