"""Which entries describe a workload, and in which order its identities stand."""

from __future__ import annotations

from livery.identity import Selector, SpiffeId
from livery_agent.identities.entry import Entry, matching, with_served_hint

UID, PATH = Selector.parse("unix:uid:1000"), Selector.parse("unix:path:/usr/bin/orders")
OTHER = Selector.parse("unix:uid:1001")


def entry(id_: str, *selectors: Selector, **fields: object) -> Entry:
    spiffe_id = SpiffeId.parse(f"spiffe://example.org/{id_}")
    return Entry(id_, spiffe_id, frozenset(selectors), **fields)  # type: ignore[arg-type]


def ids(entries: tuple[Entry, ...]) -> list[str]:
    return [e.id for e in entries]


def test_an_entry_matches_when_its_selectors_are_a_subset_of_what_was_attested():
    some, all_, too_many = entry("some", UID), entry("all", UID, PATH), entry("more", UID, PATH, OTHER)
    assert ids(matching([some, all_, too_many], frozenset({UID, PATH}))) == ["all", "some"]


def test_an_entry_without_selectors_matches_nobody():
    """By the subset rule alone it would match everybody."""
    assert matching([entry("none")], frozenset({UID})) == ()


def test_an_entry_meant_for_a_store_is_served_to_nobody():
    assert matching([entry("stored", UID, store_svid=True)], frozenset({UID})) == ()


def test_admin_and_downstream_entries_are_served_like_others():
    both = [entry("admin", UID, admin=True), entry("downstream", UID, downstream=True)]
    assert ids(matching(both, frozenset({UID}))) == ["admin", "downstream"]


def test_WL_17_the_oldest_entry_is_the_default_and_a_newer_one_does_not_take_its_place():
    old, new = entry("z-old", UID, created_at=100), entry("a-new", UID, created_at=200)
    assert ids(matching([new, old], frozenset({UID}))) == ["z-old", "a-new"]


def test_WL_17_entries_of_one_second_stand_in_the_order_of_their_ids_however_they_arrive():
    entries = [entry(name, UID, created_at=100) for name in "cab"]
    assert ids(matching(entries, frozenset({UID}))) == ["a", "b", "c"]
    assert ids(matching(reversed(entries), frozenset({UID}))) == ["a", "b", "c"]


def test_WL_11_of_entries_with_one_hint_only_the_oldest_is_served():
    entries = [
        entry("young", UID, hint="db", created_at=300),
        entry("old", UID, hint="db", created_at=100),
        entry("other", UID, hint="web", created_at=200),
    ]
    assert ids(matching(entries, frozenset({UID}))) == ["old", "other"]


def test_WL_11_entries_without_a_hint_do_not_clash():
    assert len(matching([entry("a", UID), entry("b", UID)], frozenset({UID}))) == 2


def test_WL_11_a_hint_clashes_only_among_the_entries_that_match():
    entries = [entry("foreign", OTHER, hint="db", created_at=1), entry("ours", UID, hint="db", created_at=2)]
    assert ids(matching(entries, frozenset({UID}))) == ["ours"]


def test_WL_11_a_hint_over_1024_bytes_is_not_served():
    assert with_served_hint(entry("a", UID, hint="ä" * 512)).hint == "ä" * 512
    assert with_served_hint(entry("a", UID, hint="ä" * 512 + "x")).hint == ""


def test_an_id_used_again_after_a_deletion_is_another_edition():
    assert entry("a", UID, created_at=1).edition != entry("a", UID, created_at=2).edition
