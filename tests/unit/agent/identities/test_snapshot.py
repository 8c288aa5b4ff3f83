"""The one truth on a node: its values, and how readers follow it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from livery.identity import BundleMap, Selector, SpiffeId, TrustDomain
from livery_agent.identities.entry import Entry, matching
from livery_agent.identities.snapshot import Identity, Snapshot, Snapshots, merged
from livery_agent.schedule import Renewal
from tests.fakes.clock import settle
from tests.pki import NOW, TestCa

TD = TrustDomain("example.org")
UID = Selector.parse("unix:uid:1000")


def entry(name: str, **fields: object) -> Entry:
    return Entry(name, SpiffeId.of(TD, f"/{name}"), frozenset({UID}), **fields)  # type: ignore[arg-type]


def signed(of: Entry) -> Identity:
    svid = TestCa().issue(of.spiffe_id.path)
    return Identity(of, svid, Renewal(NOW, svid.not_after), made_for=of.edition)


def empty() -> Snapshots:
    return Snapshots(Snapshot(TD, BundleMap()))


async def test_a_follower_gets_the_current_snapshot_at_once():
    snapshots = empty()
    assert (await anext(snapshots.follow())).version == 0


async def test_a_follower_that_was_away_sees_the_latest_snapshot_and_none_in_between():
    snapshots = empty()
    following = snapshots.follow()
    await anext(following)
    for _ in range(100):
        snapshots.publish(snapshots.current)
    assert (await anext(following)).version == 100
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(following), 0.02)


async def test_a_publication_wakes_every_follower():
    snapshots = empty()
    seen: list[int] = []

    async def read() -> None:
        async for snapshot in snapshots.follow():
            seen.append(snapshot.version)
            if snapshot.version == 1:
                return

    readers = [asyncio.create_task(read()) for _ in range(10)]
    await settle()
    snapshots.publish(snapshots.current)
    await asyncio.gather(*readers)
    assert sorted(seen) == [0] * 10 + [1] * 10


async def test_a_reader_that_does_not_read_does_not_hold_up_the_writer():
    """Publishing is not a coroutine: there is nothing in it that could wait."""
    snapshots = empty()
    stuck = snapshots.follow()
    await anext(stuck)
    for number in range(10_000):
        snapshots.publish(snapshots.current)
        assert snapshots.current.version == number + 1


def test_an_identity_is_pending_until_signed_or_refused():
    fresh = Identity(entry("a"))
    assert fresh.is_pending
    assert fresh.is_stale
    assert not replace(fresh, refusal="no").is_pending
    assert not signed(entry("a")).is_pending


def test_an_identity_is_usable_until_its_svid_ends():
    identity = signed(entry("a"))
    assert identity.is_usable(NOW)
    assert not identity.is_usable(NOW + timedelta(hours=1))
    assert not Identity(entry("a")).is_usable(NOW)


def test_a_merge_keeps_the_svids_of_entries_that_stay():
    a, b = signed(entry("a")), signed(entry("b"))
    after = merged([a, b], [entry("b"), entry("c")])
    assert [(i.entry.id, i.svid is not None) for i in after] == [("b", True), ("c", False)]
    assert not after[0].is_stale


def test_an_updated_entry_keeps_its_svid_until_there_is_a_new_one():
    before = replace(signed(entry("a")), refusal="the last attempt failed")
    after = merged([before], [entry("a", revision=1)])[0]
    assert after.svid is before.svid
    assert after.is_stale
    assert after.refusal == "", "the refusal was of the earlier edition"


def test_an_entry_that_now_names_another_id_loses_its_svid_at_once():
    renamed = replace(entry("a", revision=1), spiffe_id=SpiffeId.of(TD, "/other"))
    assert merged([signed(entry("a"))], [renamed])[0].svid is None


def test_an_entry_deleted_and_created_again_under_its_old_id_inherits_nothing():
    assert merged([signed(entry("a", created_at=1))], [entry("a", created_at=2)])[0].svid is None


def test_a_workload_has_the_identities_of_all_entries_that_describe_it_and_of_no_others():
    """However the entries are filed: as if each of them were held against it."""
    chance = random.Random(4)
    universe = [Selector.parse(f"unix:gid:{number}") for number in range(6)]

    def some(most: int) -> frozenset[Selector]:
        return frozenset(chance.sample(universe, chance.randint(0, most)))

    for _ in range(300):
        entries = [
            replace(entry(f"e{n}", created_at=chance.randint(0, 3), hint=chance.choice(["", "h"])), selectors=some(3))
            for n in range(8)
        ]
        snapshot, attested = Snapshot(TD, BundleMap(), tuple(map(Identity, entries))), some(6)
        assert tuple(i.entry for i in snapshot.matching(attested)) == matching(entries, attested)


def test_a_workload_is_not_held_against_every_entry_of_its_node():
    """Streams times entries would be a second of the agent's time for each rotation of a large node."""

    class Counted(frozenset[Selector]):
        compared = 0

        def __le__(self, other: object) -> bool:
            Counted.compared += 1
            return super().__le__(other)  # type: ignore[operator]

    everywhere = Selector.parse("unix:path:/usr/bin/python3")
    users = [Selector.parse(f"unix:uid:{number}") for number in range(100)]
    entries = [replace(entry(f"e{n}"), selectors=Counted({everywhere, user})) for n, user in enumerate(users)]
    snapshot = Snapshot(TD, BundleMap(), tuple(map(Identity, entries)))
    assert [i.entry.id for i in snapshot.matching(frozenset({everywhere, users[7]}))] == ["e7"]
    assert Counted.compared == 1


def test_entries_meant_for_a_store_are_not_kept_at_all():
    assert merged([], [entry("a", store_svid=True)]) == ()


def test_the_repr_of_a_snapshot_holds_no_key():
    snapshot = Snapshot(TD, BundleMap(), (signed(entry("a")),))
    shown = repr(snapshot)
    assert "PRIVATE" not in shown
    assert "private_key" not in shown
