"""The catalogue of entries follows the store's feed, whatever the feed has forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from livery_ca.entries.catalog import Catalog
from livery_ca.model import Entry, EntryFilter, Listing, Page
from livery_ca.store import Store
from livery_ca.store.errors import StoreUnavailable
from tests.fakes.clock import START, FakeClock, settle
from tests.unit.ca.doors.values import an_entry, an_id

AGENT = an_id("/spire/agent/x509pop/one")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "state" / "ca.sqlite", clock=FakeClock())
    yield opened
    await opened.close()


@pytest.fixture
def catalog(store: Store) -> Catalog:
    return Catalog(store.entries, store.changes, FakeClock())


async def ids_of(catalog: Catalog) -> list[str]:
    return [entry.id for entry in await catalog.authorized(AGENT, (), START)]


async def test_what_was_there_before_is_loaded(store: Store, catalog: Catalog) -> None:
    await store.entries.create(an_entry("a", AGENT.path, "/a"))
    assert await ids_of(catalog) == ["a"]


async def test_an_answer_knows_every_write_that_came_before_the_question(store: Store, catalog: Catalog) -> None:
    assert await ids_of(catalog) == []
    await store.entries.create(an_entry("a", AGENT.path, "/a"))
    await store.entries.create(an_entry("b", AGENT.path, "/b"))
    assert await ids_of(catalog) == ["a", "b"]
    await store.entries.update(an_entry("a", "/elsewhere", "/a"))
    assert await ids_of(catalog) == ["b"]
    await store.entries.delete("b")
    assert await ids_of(catalog) == []
    assert len(catalog) == 1


async def test_an_entry_asked_for_by_its_id_is_as_current_as_the_list(store: Store, catalog: Catalog) -> None:
    assert await catalog.entitled(AGENT, (), ["a"], START) == {}
    made = await store.entries.create(an_entry("a", AGENT.path, "/a"))
    assert await catalog.entitled(AGENT, (), ["a"], START) == {"a": made}
    await store.entries.delete("a")
    assert await catalog.entitled(AGENT, (), ["a"], START) == {}


async def test_after_the_first_time_only_what_has_changed_is_read(store: Store) -> None:
    await store.entries.create(an_entry("a", AGENT.path, "/a"))
    source = Unreliable(store, failures=0)
    catalog = Catalog(source, store.changes, FakeClock())
    assert await ids_of(catalog) == ["a"]
    source.failures = 1
    await store.entries.create(an_entry("b", AGENT.path, "/b"))
    assert await ids_of(catalog) == ["a", "b"]


async def test_more_changes_than_are_read_at_once_are_all_followed(store: Store, catalog: Catalog) -> None:
    assert await ids_of(catalog) == []
    made = [an_entry(f"{number:04}", AGENT.path, f"/w{number}") for number in range(1001)]
    await asyncio.gather(*(store.entries.create(entry) for entry in made))
    assert await ids_of(catalog) == [entry.id for entry in made]


async def test_an_id_that_is_deleted_and_made_anew_is_the_new_entry(store: Store, catalog: Catalog) -> None:
    await store.entries.create(an_entry("a", AGENT.path, "/old"))
    assert await ids_of(catalog) == ["a"]
    await store.entries.delete("a")
    await store.entries.create(an_entry("a", AGENT.path, "/new"))
    (entry,) = await catalog.authorized(AGENT, (), START)
    assert entry.spiffe_id == an_id("/new")


async def test_a_feed_that_has_forgotten_makes_it_load_anew(store: Store, catalog: Catalog) -> None:
    await store.entries.create(an_entry("a", AGENT.path, "/a"))
    assert await ids_of(catalog) == ["a"]
    await store.entries.delete("a")
    await store.entries.create(an_entry("b", AGENT.path, "/b"))
    await store.changes.prune(START.replace(year=2030))
    await store.entries.create(an_entry("c", AGENT.path, "/c"))
    assert await ids_of(catalog) == ["b", "c"]


async def test_it_follows_by_itself(store: Store, catalog: Catalog) -> None:
    following = asyncio.ensure_future(catalog.follow())
    await store.entries.create(an_entry("a", AGENT.path, "/a"))
    async with asyncio.timeout(10):
        while len(catalog) != 1:
            await asyncio.sleep(0.001)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


class Unreliable:
    """The store's entries, away as often as `failures` says."""

    def __init__(self, store: Store, failures: int) -> None:
        self.store = store
        self.failures = failures

    async def get(self, entry_id: str) -> Entry | None:
        return await self.store.entries.get(entry_id)

    async def list(self, wanted: EntryFilter, page: Page) -> Listing[Entry]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the store did not answer")
        return await self.store.entries.list(wanted, page)


async def test_while_the_store_is_away_it_says_so_and_it_tries_again(store: Store) -> None:
    await store.entries.create(an_entry("a", AGENT.path, "/a"))
    clock = FakeClock()
    catalog = Catalog(Unreliable(store, failures=2), store.changes, clock)
    with pytest.raises(StoreUnavailable):
        await ids_of(catalog)
    following = asyncio.ensure_future(catalog.follow())
    await clock.sleepers(1)
    clock.advance(1)
    async with asyncio.timeout(10):
        while len(catalog) != 1:
            await asyncio.sleep(0.001)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await settle()
