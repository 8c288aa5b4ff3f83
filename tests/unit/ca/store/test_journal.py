"""The issuance journal: numbering, uniqueness, outcomes once, and what a start makes of open intents."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from livery_ca.ledger import merkle
from livery_ca.model import JwtRecord, Node, Outcome, Page
from livery_ca.store import Store, nodes
from livery_ca.store.errors import JournalConflict, StoreError
from livery_ca.store.journal import Settlement
from livery_ca.store.writes import AttestNode
from tests.fakes.clock import START, FakeClock
from tests.unit.ca.store.values import intent, node, sid


async def test_intents_are_numbered_without_a_gap_whoever_appends(store: Store) -> None:
    """RFC 6962: the log is a sequence; groups that fail leave no hole in it."""
    await store.journal.append([intent(1), intent(2)])
    with pytest.raises(JournalConflict):
        await store.journal.append([intent(3), intent(1)])
    groups = await asyncio.gather(*(store.journal.append([intent(100 + i), intent(200 + i)]) for i in range(10)))
    numbers = sorted(i.index for group in groups for i in group)
    assert numbers == list(range(2, 22))
    assert await store.leaves.size() == 22
    assert await store.journal.get(3) is None


async def test_the_leaf_of_each_intent_is_in_the_log_at_its_index(store: Store) -> None:
    """So the tree's root commits to every TBS the authority meant to sign."""
    made = await store.journal.append([intent(i) for i in range(1, 6)])
    hashes = await store.leaves.hashes(0, 5)
    assert hashes == tuple(merkle.leaf_hash(i.tbs) for i in made)
    assert await store.leaves.hashes(1, 3) == hashes[1:3]


async def test_a_serial_is_never_journalled_twice(store: Store) -> None:
    await store.journal.append([intent(2**159 - 1)])
    with pytest.raises(JournalConflict):
        await store.journal.append([intent(2**159 - 1)])


async def test_an_intent_comes_back_with_its_outcome(store: Store) -> None:
    (made,) = await store.journal.append([intent(7, entry_id="e", authorized_by="policy 3")])
    settled = await store.journal.get(7)
    assert settled is not None
    assert (settled.intent, settled.outcome) == (made, None)
    at = START + timedelta(seconds=1)
    await store.journal.settle([Settlement(made.index, Outcome.ISSUED, at, signature=b"sig")])
    settled = await store.journal.get(7)
    assert settled is not None
    assert (settled.outcome, settled.settled_at, settled.signature) == (Outcome.ISSUED, at, b"sig")


async def test_an_intent_is_settled_at_most_once(store: Store) -> None:
    """A second outcome is refused with its whole group, and the first stands."""
    first, second = await store.journal.append([intent(1), intent(2)])
    await store.journal.settle([Settlement(first.index, Outcome.ISSUED, START)])
    with pytest.raises(JournalConflict):
        again = [Settlement(i.index, Outcome.FAILED, START) for i in (first, second)]
        await store.journal.settle(again)
    outcomes = [s.outcome for s in (await store.journal.list()).items]
    assert outcomes == [Outcome.ISSUED, None]


async def test_an_extra_write_that_breaks_in_a_way_of_its_own_withholds_its_item_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its group is of several callers: they are settled, and nothing of it is left behind."""
    broken, sound, last = await store.journal.append([intent(i) for i in (1, 2, 3)])
    attest = nodes.attest

    def attesting(connection: Connection, attested: Node, at: datetime) -> None:
        attest(connection, attested, at)
        if attested.serial == "1":
            raise ZeroDivisionError

    monkeypatch.setattr(nodes, "attest", attesting)
    settled = [
        Settlement(i.index, Outcome.ISSUED, START, writes=(AttestNode(node(f"n{i.serial}", serial=str(i.serial))),))
        for i in (broken, sound, last)
    ]
    refusal, *rest = await store.journal.settle(settled)
    assert isinstance(refusal, StoreError)
    assert "ZeroDivisionError" in refusal.why
    assert rest == [None, None]
    lines = (await store.journal.list()).items
    assert [line.outcome for line in lines] == [Outcome.WITHHELD, Outcome.ISSUED, Outcome.ISSUED]
    assert [line.reason for line in lines] == [str(refusal), "", ""]
    assert [kept.serial for kept in (await store.nodes.list()).items] == ["2", "3"]


async def test_at_a_start_open_intents_become_unknown_and_settled_ones_stay(
    store: Store, store_path: Path, clock: FakeClock
) -> None:
    """And an unknown one can never be settled as issued."""
    made = await store.journal.append([intent(i) for i in (1, 2, 3)])
    await store.journal.settle([Settlement(made[0].index, Outcome.ISSUED, START)])
    await store.close()
    again = await Store.open(store_path, clock=clock)
    try:
        assert await again.journal.abandon_open(START) == made[1:]
        assert await again.journal.abandon_open(START) == []
        counts = await again.journal.unsettled_counts()
        assert counts == {None: 0, Outcome.FAILED: 0, Outcome.WITHHELD: 0, Outcome.UNKNOWN: 2}
        listed = (await again.journal.list(Outcome.UNKNOWN)).items
        assert [s.intent.serial for s in listed] == [2, 3]
        with pytest.raises(JournalConflict):
            await again.journal.settle([Settlement(made[1].index, Outcome.ISSUED, START)])
    finally:
        await again.close()


async def test_the_journal_is_listed_by_page(store: Store) -> None:
    await store.journal.append([intent(i) for i in range(1, 6)])
    page = await store.journal.list(page=Page(3))
    assert [s.intent.serial for s in page.items] == [1, 2, 3]
    assert page.last_row is not None
    rest = await store.journal.list(page=Page(3, page.last_row))
    assert [s.intent.serial for s in rest.items] == [4, 5]


async def test_the_last_time_is_the_newest_intents(store: Store) -> None:
    assert await store.journal.last_time() is None
    later = START + timedelta(microseconds=1)
    await store.journal.append([intent(1), intent(2, later)])
    assert await store.journal.last_time() == later


async def test_pruning_keeps_leaves_open_intents_and_the_newest(store: Store) -> None:
    """The log forgets no leaf, and the clock keeps what it is held against."""
    old, still_open, newest = await store.journal.append([intent(i) for i in (1, 2, 3)])
    await store.journal.settle([Settlement(i.index, Outcome.ISSUED, START) for i in (old, newest)])
    record = JwtRecord(b"h" * 32, sid("/w"), ("aud",), "kid", "x", START, START + timedelta(minutes=5))
    await store.journal.record_jwt(record)
    assert await store.journal.prune(START + timedelta(days=30)) == 2
    assert [s.intent for s in (await store.journal.list()).items] == [still_open, newest]
    assert await store.leaves.size() == 3
    (fourth,) = await store.journal.append([intent(4)])
    assert fourth.index == 3


async def test_pruning_a_long_past_goes_in_portions_and_leaves_nothing_over(store: Store, monkeypatch) -> None:
    monkeypatch.setattr("livery_ca.store.journal.PRUNED_AT_ONCE", 2)
    old = await store.journal.append([intent(i) for i in range(6)])
    await store.journal.settle([Settlement(i.index, Outcome.ISSUED, START) for i in old])
    assert await store.journal.prune(START + timedelta(days=30)) == 5
    assert [s.intent for s in (await store.journal.list()).items] == old[-1:]


async def test_pruning_goes_by_an_index_to_what_has_ended(store: Store) -> None:
    """It runs where everybody's writes run: reading a journal of millions through would hold them all up."""
    plans: list[str] = []

    def explained(connection: Connection) -> None:
        def explain(_: object, cursor: sqlite3.Cursor, statement: str, parameters: object, *__: object) -> None:
            if statement.startswith("DELETE"):
                plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
                plans.extend(row[3] for row in plan)

        event.listen(connection.engine, "before_cursor_execute", explain)

    await store._database.write(explained)
    await store.journal.prune(START)
    assert any("intents USING INDEX ix_intents_not_after" in step for step in plans)
    assert any("jwt_records USING COVERING INDEX ix_jwt_records_expires_at" in step for step in plans)
    assert not [step for step in plans if step.startswith("SCAN") or "PRIMARY KEY (rowid<?)" in step]


async def test_an_intents_times_keep_their_microseconds(store: Store) -> None:
    at = START + timedelta(microseconds=123457)
    (made,) = await store.journal.append([replace(intent(1, at), not_after=at)])
    settled = await store.journal.get(1)
    assert settled is not None
    assert settled.intent == made
