"""Who is entitled to which entries: the closure over parents and node aliases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livery.identity import Selector
from livery_ca.entries.entitlement import authorized_entries, entitled_entries, is_admin, is_downstream
from livery_ca.entries.index import EntryIndex
from livery_ca.model import Entry
from tests.fakes.clock import START
from tests.unit.ca.doors.values import an_entry, an_id

AGENT = an_id("/spire/agent/x509pop/one")
SERVER = "/spire/server"
LATER = START + timedelta(hours=1)
EVERY_ID = ("a", "b", "c", "w", "alias", *map(str, range(12)))  # that these tests give to entries


def ids_of(index: EntryIndex, *selectors: str) -> list[str]:
    """The ids found from the agent down; from each entry up to the agent the same are found."""
    chosen = [Selector.parse(each) for each in selectors]
    down = authorized_entries(index, AGENT, chosen, START)
    assert entitled_entries(index, AGENT, chosen, EVERY_ID, START) == {entry.id: entry for entry in down}
    return [entry.id for entry in down]


def test_without_entries_nobody_is_entitled_to_anything() -> None:
    assert ids_of(EntryIndex(), "x509pop:subject:cn:one") == []


def test_an_agent_is_entitled_to_the_entries_under_it_and_to_no_others() -> None:
    index = EntryIndex([an_entry("b", AGENT.path, "/b"), an_entry("a", AGENT.path, "/a"), an_entry("c", "/x", "/c")])
    assert ids_of(index) == ["a", "b"]


def test_entitlement_reaches_down_through_entries() -> None:
    index = EntryIndex([an_entry("a", AGENT.path, "/a"), an_entry("b", "/a", "/b"), an_entry("c", "/b", "/c")])
    assert ids_of(index) == ["a", "b", "c"]


def test_entries_that_are_each_others_parents_are_found_once() -> None:
    index = EntryIndex([an_entry("a", AGENT.path, "/a"), an_entry("b", "/a", "/b"), an_entry("c", "/b", "/a")])
    assert ids_of(index) == ["a", "b", "c"]


def test_a_node_alias_entitles_to_what_is_under_it_but_is_not_handed_out() -> None:
    alias = an_entry("alias", SERVER, "/nodes/web", "x509pop:subject:cn:one", "x509pop:san:role:web")
    index = EntryIndex([alias, an_entry("w", "/nodes/web", "/w")])
    assert ids_of(index, "x509pop:subject:cn:one", "x509pop:san:role:web", "x509pop:serialnumber:01") == ["w"]


@pytest.mark.parametrize("selectors", [(), ("x509pop:subject:cn:one",), ("x509pop:san:role:web", "x509pop:san:a:b")])
def test_an_alias_wants_all_of_its_selectors(selectors: tuple[str, ...]) -> None:
    alias = an_entry("alias", SERVER, "/nodes/web", "x509pop:subject:cn:one", "x509pop:san:role:web")
    assert ids_of(EntryIndex([alias, an_entry("w", "/nodes/web", "/w")]), *selectors) == []


def test_the_alias_of_a_join_token_is_an_entry_like_any_other() -> None:
    """It stands under the agent itself, so its SPIFFE ID is reached, and so is what stands under that."""
    index = EntryIndex([an_entry("alias", AGENT.path, "/vanity", f"spiffe_id:{AGENT}"), an_entry("w", "/vanity", "/w")])
    assert ids_of(index) == ["alias", "w"]


def test_an_expired_entry_entitles_neither_to_itself_nor_to_what_is_under_it() -> None:
    ended = an_entry("a", AGENT.path, "/a", expires_at=START)
    assert ids_of(EntryIndex([ended, an_entry("b", "/a", "/b")])) == []


def test_what_has_expired_parts_what_stands_above_it_from_what_stands_below() -> None:
    """An entry with a parent of two entries is under the agent by the one that has not expired."""
    ended = an_entry("a", AGENT.path, "/a", expires_at=START)
    below = [an_entry("b", "/a", "/b"), an_entry("c", "/b", "/c")]
    assert ids_of(EntryIndex([ended, *below])) == []
    assert ids_of(EntryIndex([ended, *below, an_entry("w", AGENT.path, "/a")])) == ["b", "c", "w"]


def test_an_expired_alias_is_none() -> None:
    alias = an_entry("alias", SERVER, "/nodes/web", "a:b", expires_at=START)
    assert ids_of(EntryIndex([alias, an_entry("w", "/nodes/web", "/w")]), "a:b") == []


def test_replacing_an_entry_moves_it_and_removing_it_takes_it_away() -> None:
    index = EntryIndex([an_entry("a", AGENT.path, "/a")])
    index.put(an_entry("a", "/elsewhere", "/a"))
    assert ids_of(index) == []
    index.put(an_entry("a", SERVER, "/nodes/web", "a:b"))
    index.put(an_entry("w", "/nodes/web", "/w"))
    assert ids_of(index, "a:b") == ["w"]
    index.remove("a")
    index.remove("a")
    assert ids_of(index, "a:b") == []
    assert len(index) == 1


def test_an_index_of_which_everything_was_removed_holds_nothing() -> None:
    index = EntryIndex()
    for number in range(3):
        index.put(an_entry("a", AGENT.path, f"/a{number}"))
        index.put(an_entry("alias", SERVER, f"/nodes/{number}", f"a:{number}", "b:c"))
    index.remove("a")
    index.remove("alias")
    assert not any(vars(index).values()), "not even an empty set under a key"


def test_of_the_entries_only_what_is_asked_for_is_found() -> None:
    index = EntryIndex([an_entry("a", AGENT.path, "/a"), an_entry("b", AGENT.path, "/b"), an_entry("c", "/x", "/c")])
    assert list(entitled_entries(index, AGENT, (), {"b", "c", "elsewhere"}, START)) == ["b"]


@pytest.mark.parametrize(
    ("fields", "at", "admin", "downstream"),
    [
        ({}, START, False, False),
        ({"admin": True}, START, True, False),
        ({"downstream": True}, START, False, True),
        ({"admin": True, "downstream": True, "expires_at": LATER}, START, True, True),
        ({"admin": True, "downstream": True, "expires_at": LATER}, LATER, False, False),
    ],
)
def test_an_entry_gives_its_own_identity_an_office_until_it_ends(fields, at, admin, downstream) -> None:
    own = [an_entry("a", "/x", "/a", **fields)]
    assert (is_admin(own, at), is_downstream(own, at)) == (admin, downstream)


PATHS = st.sampled_from([AGENT.path, "/a", "/b", "/c", "/d", "/e"])


@given(st.lists(st.tuples(PATHS, PATHS), max_size=12))
def test_the_closure_is_what_a_search_by_hand_finds(edges: list[tuple[str, str]]) -> None:
    entries: list[Entry] = [an_entry(str(number), parent, path) for number, (parent, path) in enumerate(edges)]
    reached, grew = {AGENT.path}, True
    while grew:
        more = {entry.spiffe_id.path for entry in entries if entry.parent_id.path in reached} - reached
        reached, grew = reached | more, bool(more)
    expected = sorted(entry.id for entry in entries if entry.parent_id.path in reached)
    assert ids_of(EntryIndex(entries)) == expected


SELECTOR = Selector.parse("x509pop:subject:cn:one")
EDGES = st.tuples(st.one_of(PATHS, st.just(SERVER)), PATHS, st.booleans(), st.booleans())


@given(st.lists(EDGES, max_size=12), st.booleans())
def test_asked_for_by_id_or_all_at_once_an_agent_is_entitled_to_the_same(
    edges: list[tuple[str, str, bool, bool]], has_selector: bool
) -> None:
    """The way up from an entry and the way down from the agent agree, aliases, expired entries and circles included."""
    index = EntryIndex(
        an_entry(str(number), parent, path, str(SELECTOR) if matches else "a:b", expires_at=START if ended else None)
        for number, (parent, path, matches, ended) in enumerate(edges)
    )
    selectors = [SELECTOR] if has_selector else []
    down = authorized_entries(index, AGENT, selectors, START)
    up = entitled_entries(index, AGENT, selectors, [str(number) for number in range(len(edges))], START)
    assert up == {entry.id: entry for entry in down}
