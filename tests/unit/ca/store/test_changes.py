"""The change feed: in order, in the same transaction, with a wake-up, and honest about what was pruned."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from livery_ca.store import Store
from livery_ca.store.errors import SimilarEntry
from tests.fakes.clock import START, FakeClock
from tests.unit.ca.store.values import entry, intent, node, sid


async def test_a_waiter_wakes_when_the_change_can_be_read(store: Store) -> None:
    """Woken means committed: what the feed announces is in the store."""
    waiting = asyncio.create_task(store.changes.wait(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    await store.entries.create(entry("a"))
    assert await asyncio.wait_for(waiting, 5) == 1
    assert [c.key for c in (await store.changes.since(0)).changes] == ["a"]
    assert await store.changes.wait(0) == 1


async def test_a_refused_write_leaves_no_change(store: Store) -> None:
    await store.entries.create(entry("a", spiffe_id=sid("/w")))
    with pytest.raises(SimilarEntry):
        await store.entries.create(entry("b", spiffe_id=sid("/w")))
    assert len((await store.changes.since(0)).changes) == 1
    assert store.changes.latest == 1


async def test_the_journal_is_its_own_log_and_does_not_fill_the_feed(store: Store) -> None:
    await store.journal.append([intent(1)])
    assert store.changes.latest == 0


async def test_a_follower_reads_on_from_where_it_was_after_a_restart(
    store: Store, store_path: Path, clock: FakeClock
) -> None:
    await store.entries.create(entry("a"))
    await store.close()
    again = await Store.open(store_path, clock=clock)
    try:
        assert again.changes.latest == 1
        await again.nodes.attest(node("n"))
        assert [(c.seq, c.kind) for c in (await again.changes.since(1)).changes] == [(2, "node")]
    finally:
        await again.close()


async def test_a_follower_who_missed_pruned_changes_is_told(store: Store, clock: FakeClock) -> None:
    """`complete` is false exactly when something between its place and the feed is gone."""
    for i in range(3):
        await store.entries.create(entry(f"e{i}"))
        clock.advance(60)
    assert await store.changes.prune(START + timedelta(seconds=90)) == 2
    assert not (await store.changes.since(0)).complete
    assert not (await store.changes.since(1)).complete
    assert (await store.changes.since(2)).complete
    assert (await store.changes.since(3)).complete
    assert await store.changes.prune(START + timedelta(days=1)) == 0  # the newest stays and carries the number
    await store.entries.create(entry("e3"))
    assert store.changes.latest == 4


async def test_a_long_feed_is_read_in_parts(store: Store) -> None:
    await asyncio.gather(*(store.entries.create(entry(f"e{i}")) for i in range(5)))
    first = await store.changes.since(0, limit=2)
    rest = await store.changes.since(first.changes[-1].seq, limit=10)
    assert [c.seq for c in (*first.changes, *rest.changes)] == [1, 2, 3, 4, 5]
