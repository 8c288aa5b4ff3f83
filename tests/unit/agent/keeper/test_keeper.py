"""The one writer at work: what it does when, and what it does when things go wrong."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from livery.identity import BundleMap, TrustBundle, TrustDomain, verify_x509
from livery.runtime.files import StorageFull
from livery_agent.attest.node.x509pop import X509PopAttestor
from livery_agent.errors import NodeLost, StateUnreadable
from livery_agent.identities.snapshot import Snapshot
from livery_agent.node.seal import STATE_FILE
from tests.fakes.agent import INTERVAL, Insides, entry, insides
from tests.fakes.node_files import Files
from tests.pki import TestCa

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def attestor(directory: Path) -> X509PopAttestor:
    return Files(directory).attestor()


# Starting


async def test_the_first_step_attests_synchronises_and_signs():
    async with insides(entry("orders"), entry("inventory")) as here:
        snapshot = here.snapshots.current
        assert snapshot.synced
        assert [str(i.svid.id) for i in snapshot.identities if i.svid] == [
            "spiffe://example.org/inventory",
            "spiffe://example.org/orders",
        ]
        for identity in snapshot.identities:
            assert identity.svid is not None
            verify_x509(identity.svid.chain, snapshot.bundles, here.clock.now())


async def test_every_identity_has_a_key_of_its_own():
    async with insides(entry("a"), entry("b")) as here:
        assert here.svid("a").key_der() != here.svid("b").key_der()


async def test_entries_meant_for_a_store_are_not_signed():
    async with insides(entry("a"), entry("stored", store_svid=True)) as here:
        assert [name for name, _ in here.ca.signed if name != "node"] == ["a"]


async def test_while_the_ca_is_away_at_the_start_the_agent_goes_on_trying():
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.away = True
        await here.keeper.resume()
        await here.keeper.step()
        assert not here.snapshots.current.synced
        assert "the CA is away" in here.status.failures["node"].error
        here.ca.orders.away = False
        await here.pass_time(timedelta(seconds=8))
        assert here.svid("a") is not None
        assert here.status.failures == {}
        assert here.status.last_error is not None, "what went wrong stays to be seen"


async def test_a_node_that_never_had_an_identity_and_has_no_evidence_ends_with_what_is_missing(tmp_path: Path):
    missing = Files(tmp_path).attestor()
    (tmp_path / "node.key").unlink()
    async with insides(attestor=missing, start=False) as here:
        with pytest.raises(NodeLost, match=r"node\.key"):
            await here.keeper.step()


async def test_a_ca_that_changed_its_authority_while_the_node_was_away_is_known_by_the_operators_file(tmp_path: Path):
    """Both count: the last bundle, which follows rotations, and the file, which a person may have replaced since."""
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        known = here.snapshots.current.bundle
        here.ca.rotate(drop=True)
        here.trusted = here.ca.bundle
        here.clock.advance(HOUR * 2)
        trusted: list[TrustBundle | None] = []
        join = here.dial.join
        here.dial.join = lambda bundle: (trusted.append(bundle), join(bundle))[1]  # type: ignore[method-assign]
        await here.restart()
        await here.keeper.step()
        assert known is not None
        assert trusted[0] is not None
        assert set(trusted[0].x509_authorities) == {*known.x509_authorities, *here.ca.bundle.x509_authorities}


async def test_a_node_whose_evidence_is_refused_ends_with_what_to_do():
    async with insides(start=False) as here:
        here.ca.tokens["a-token"] = b"another key"
        with pytest.raises(NodeLost, match="already been used") as lost:
            await here.keeper.step()
        assert "join token" in lost.value.fix


async def test_a_node_whose_connection_had_its_time_while_it_attested_tries_again():
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.refuse_join = (grpc.StatusCode.UNAUTHENTICATED, "this call has no caller")
        await here.keeper.step()
        assert "no caller" in here.status.failures["node"].error
        here.ca.orders.refuse_join = None
        await here.pass_time(timedelta(seconds=8))
        assert here.svid("a") is not None


async def test_a_spoiled_state_ends_the_start_and_is_left_as_it_is():
    async with insides(start=False) as here:
        path = here.directory / STATE_FILE
        path.touch(mode=0o600)
        path.write_bytes(b"spoiled")
        (here.directory / "bundle.json").touch(mode=0o600)
        (here.directory / "bundle.json").write_bytes(here.ca.bundle.to_jwks())
        with pytest.raises(StateUnreadable):
            await here.keeper.resume()
        assert path.read_bytes() == b"spoiled"


# Renewing


async def test_workload_svids_are_renewed_at_half_of_their_life():
    async with insides(entry("a")) as here:
        here.ca.orders.node_ttl = 24 * HOUR
        first = here.serial("a")
        await here.pass_time(HOUR / 2 - SECOND, step=INTERVAL)
        assert here.serial("a") == first
        await here.pass_time(SECOND)
        assert here.serial("a") != first


async def test_hazard_24_the_jitter_is_drawn_once_per_svid():
    """With a draw at the late edge the SVID is renewed late, although every later draw would say early."""
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.node_ttl = 24 * HOUR
        here.chance = 1.0
        await here.keeper.step()
        here.chance = 0.0
        first = here.serial("a")
        await here.pass_time(timedelta(minutes=32), step=timedelta(seconds=10))
        assert here.serial("a") == first
        await here.pass_time(timedelta(minutes=2), step=timedelta(seconds=10))
        assert here.serial("a") != first


async def test_hazard_24_after_a_suspension_everything_overdue_is_renewed_at_the_next_tick():
    """The wall clock has moved on, the stopwatch has not."""
    async with insides(entry("a")) as here:
        first, own = here.serial("a"), here.node.svid
        here.clock.set_wall(here.clock.now() + timedelta(minutes=50))
        await here.keeper.step()
        assert here.serial("a") != first
        assert here.node.svid != own


async def test_hazard_24_a_new_svid_not_valid_at_our_own_time_does_not_enter_and_the_skew_is_reported():
    async with insides(entry("a")) as here:
        first = here.svid("a")
        here.ca.orders.skew = timedelta(hours=2)
        await here.pass_time(timedelta(minutes=31), step=INTERVAL)
        assert here.svid("a") is first, "the old one stays"
        assert "compare" in here.status.skew or "not valid" in here.status.skew
        here.ca.orders.skew = timedelta(0)
        await here.pass_time(timedelta(minutes=3), step=INTERVAL)
        assert here.svid("a") is not first
        assert here.status.skew == ""


async def test_an_identity_that_was_refused_is_left_alone_for_longer_each_time():
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.decline["a"] = (9, "policy says no")
        await here.keeper.step()
        assert here.snapshots.current.identities[0].refusal.endswith("policy says no")
        before = here.ca.calls["BatchNewX509SVID"]
        await here.pass_time(timedelta(minutes=5))
        assert 4 <= here.ca.calls["BatchNewX509SVID"] - before <= 10, "not once a second"
        here.ca.orders.decline.clear()
        await here.pass_time(timedelta(minutes=1))
        assert here.svid("a") is not None
        assert here.signer._resting == {}, "the next refusal is a first one again"


async def test_an_identity_that_is_refused_near_its_end_is_tried_more_often_the_nearer_it_comes():
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.svid_ttl = timedelta(minutes=1)
        await here.keeper.step()
        await here.pass_time(timedelta(seconds=25))
        here.ca.orders.decline["a"] = (13, "failed to sign X509-SVID")
        before = here.ca.calls["BatchNewX509SVID"]
        await here.pass_time(timedelta(seconds=30))
        assert here.ca.calls["BatchNewX509SVID"] - before >= 8
        here.ca.orders.decline.clear()
        await here.pass_time(SECOND)
        assert here.snapshots.current.identities[0].is_usable(here.clock.now())


async def test_what_is_known_of_refusals_goes_with_the_entry():
    """Else a node whose entries come and go would remember every one of them."""
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.decline["a"] = (9, "policy says no")
        await here.keeper.step()
        assert len(here.signer._resting) == 1
        del here.ca.entries["a"]
        await here.pass_time(INTERVAL * 2)
        assert here.signer._resting == {}


async def test_a_ca_that_fails_is_asked_for_less_and_for_all_again_once_it_is_well():
    async with insides(*(entry(f"e{n:02}") for n in range(16)), start=False) as here:
        here.ca.orders.lose_reply.add("BatchNewX509SVID")
        await here.keeper.step()
        assert here.signer._batch == 8
        here.ca.orders.lose_reply.clear()
        here.ca.orders.max_batch = 3
        await here.pass_time(timedelta(minutes=1))
        assert all(i.svid is not None for i in here.snapshots.current.identities)
        here.ca.orders.max_batch = 500
        for _ in range(2):
            await here.pass_time(timedelta(minutes=31), step=timedelta(minutes=1))
        before = here.ca.calls["BatchNewX509SVID"]
        await here.pass_time(timedelta(minutes=31), step=timedelta(minutes=1))
        assert here.ca.calls["BatchNewX509SVID"] - before == 1


async def test_a_refusal_of_one_identity_does_not_delay_another():
    async with insides(entry("a"), entry("b"), start=False) as here:
        here.ca.orders.decline["a"] = (13, "failed to sign X509-SVID")
        await here.keeper.step()
        assert here.svid("a") is None
        assert here.svid("b") is not None


@pytest.mark.parametrize(("code", "passing"), [(13, True), (14, True), (7, False), (5, False)])
async def test_a_failure_that_may_pass_is_told_from_a_refusal(code: int, passing: bool):
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.decline["a"] = (code, "failed to sign X509-SVID")
        await here.keeper.step()
        identity = here.snapshots.current.identities[0]
        assert identity.refusal == "the CA did not sign: failed to sign X509-SVID"
        assert identity.is_declined is not passing


async def test_a_batch_the_ca_finds_too_large_is_halved_until_it_is_not():
    async with insides(*(entry(f"e{n:02}") for n in range(20)), start=False) as here:
        here.ca.orders.max_batch = 3
        await here.keeper.step()
        assert here.status.failures == {}, "one round, in smaller batches"
        assert all(i.svid is not None for i in here.snapshots.current.identities)
        assert here.status.renewals == 20, "what was asked for again in a smaller batch is no renewal yet"


async def test_the_nearest_to_its_end_is_renewed_first():
    async with insides(entry("long"), start=False) as here:
        here.ca.orders.svid_ttl = timedelta(minutes=50)
        await here.keeper.step()
        here.ca.orders.svid_ttl = timedelta(minutes=40)
        here.ca.add(entry("short"))
        await here.pass_time(INTERVAL + SECOND)
        here.signer._batch = 1
        here.ca.signed.clear()
        here.clock.advance(timedelta(minutes=30))
        await here.keeper.step()
        assert [name for name, _ in here.ca.signed if name != "node"] == ["short", "long"]


# Entries


async def test_an_entry_that_is_added_or_removed_shows_within_an_interval():
    async with insides(entry("a")) as here:
        here.ca.add(entry("b"))
        await here.pass_time(INTERVAL)
        assert here.svid("b") is not None
        del here.ca.entries["a"]
        await here.pass_time(INTERVAL)
        assert [i.entry.id for i in here.snapshots.current.identities] == ["b"]


async def test_an_entry_that_was_updated_gets_a_new_svid_at_once():
    """Its DNS names or TTL may have changed, which we never see: the revision says so."""
    async with insides(entry("a"), entry("b")) as here:
        a, b = here.serial("a"), here.serial("b")
        here.ca.revise("a")
        await here.pass_time(INTERVAL)
        assert here.serial("a") != a
        assert here.serial("b") == b


async def test_what_did_not_change_is_not_published():
    async with insides(entry("a")) as here:
        version = here.snapshots.current.version
        await here.pass_time(timedelta(minutes=5))
        assert here.snapshots.current.version == version


# Bundles


async def test_a_changed_bundle_is_published_saved_and_acknowledged():
    async with insides(entry("a")) as here:
        here.ca.rotate()
        await here.pass_time(INTERVAL)
        assert here.snapshots.current.bundle == here.ca.bundle
        saved = here.seal.load_bundle()
        assert saved is not None
        assert saved.sequence == 2
        assert [s.current_bundle_serial for s in here.ca.statuses] == [1, 2]


async def test_a_ca_that_knows_no_acknowledgements_is_synchronised_with_at_the_same_pace():
    """Older SPIRE servers. As a failure it would make every synchronisation one, and new entries a minute late."""
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.status = False
        await here.keeper.step()
        await here.pass_time(timedelta(minutes=1))
        assert here.status.failures == {}
        assert here.ca.calls["PostStatus"] == 1, "once, and not again and again"
        here.ca.add(entry("b"))
        await here.pass_time(INTERVAL + SECOND)
        assert here.svid("b") is not None


async def test_an_acknowledgement_that_failed_is_made_up_for():
    async with insides(entry("a")) as here:
        here.ca.rotate()
        here.ca.orders.lose_reply.add("PostStatus")
        await here.pass_time(INTERVAL)
        here.ca.orders.lose_reply.clear()
        await here.pass_time(INTERVAL * 4)
        assert here.ca.statuses[-1].current_bundle_serial == 2
        assert here.status.acknowledged == 2


async def test_a_ca_that_forgot_this_node_is_told_its_bundle_and_version_again(tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        told = here.ca.statuses[-1]
        here.ca.forget_nodes()
        await here.pass_time(INTERVAL + SECOND * 2)
        assert here.ca.statuses == [told, told]
        assert told.agent_version


async def test_tokens_of_a_tainted_key_are_dropped_with_the_bundle_that_says_so():
    async with insides(entry("a")) as here:
        held = here.snapshots.current.identities[0].entry
        first = await here.jwt_svids.get(held, ["db"])
        here.ca.rotate()
        await here.pass_time(INTERVAL * 2)
        assert await here.jwt_svids.get(held, ["db"]) == first, "a new key beside it is no reason"
        here.ca.rotate(taint=True)
        await here.pass_time(INTERVAL * 2)
        assert len(here.jwt_svids) == 0


async def test_svids_of_a_tainted_authority_are_replaced_at_once_and_only_once():
    async with insides(entry("a"), entry("b")) as here:
        serials, own = (here.serial("a"), here.serial("b")), here.node.svid
        here.ca.rotate(taint=True)
        await here.pass_time(INTERVAL + SECOND)
        assert here.serial("a") != serials[0]
        assert here.serial("b") != serials[1]
        assert here.node.svid != own, "ours hung on it too"
        signed = len(here.ca.signed)
        await here.pass_time(timedelta(minutes=2))
        assert len(here.ca.signed) == signed


async def test_an_agent_that_restarts_with_its_own_authority_tainted_replaces_its_certificate_all_the_same():
    """Once the authority is dropped, no connection would be left to mend it over."""
    async with insides(entry("a")) as here:
        own = here.node.svid
        here.ca.rotate(taint=True)
        here.clock.advance(INTERVAL * 2)
        await here.keeper.step()
        assert here.node.svid == own, "the bundle is known, and the next step would renew"
        await here.restart()
        await here.pass_time(INTERVAL)
        assert here.node.svid != own
        renewed = here.node.svid
        await here.pass_time(timedelta(minutes=1))
        assert here.node.svid == renewed, "once"


async def test_a_rotation_without_taint_replaces_nothing_early():
    async with insides(entry("a")) as here:
        serial = here.serial("a")
        here.ca.rotate()
        await here.pass_time(INTERVAL * 2)
        assert here.serial("a") == serial


async def test_a_bundle_without_authorities_is_not_taken():
    async with insides(entry("a")) as here:
        before = here.snapshots.current.bundle
        here.ca.authorities = ()
        await here.pass_time(INTERVAL)
        assert here.snapshots.current.bundle == before
        assert "without authorities" in here.status.failures["sync"].error


async def test_federated_bundles_follow_the_entries():
    partner = TrustDomain("partner.test")
    async with insides(entry("a", federates_with=(partner,))) as here:
        assert partner not in here.snapshots.current.bundles, "the CA has none yet: that is no error"
        theirs = TestCa(partner, now=here.clock.now())
        here.ca.orders.federated["partner.test"] = theirs.bundle()
        await here.pass_time(INTERVAL)
        assert here.snapshots.current.bundles[partner].x509_authorities == theirs.bundle().x509_authorities
        here.ca.revise("a", federates_with=())
        await here.pass_time(INTERVAL)
        assert partner not in here.snapshots.current.bundles


async def test_an_entry_that_federates_with_our_own_domain_changes_nothing_about_its_bundle():
    """The CA has no federated bundle of it; and what it may have had once must not stand in the place of today's."""
    own = TrustDomain("example.org")
    async with insides(entry("a", federates_with=(own,))) as here:
        here.ca.orders.federated["example.org"] = here.ca.bundle
        here.ca.rotate()
        await here.pass_time(INTERVAL)
        assert here.snapshots.current.bundle == here.ca.bundle
        assert here.ca.calls["GetFederatedBundle"] == 0


async def test_a_partners_spoiled_bundle_does_not_stop_the_node():
    partner, other = TrustDomain("partner.test"), TrustDomain("other.test")
    async with insides(entry("a", federates_with=(partner,))) as here:
        good = TestCa(partner, now=here.clock.now()).bundle()
        here.ca.orders.federated["partner.test"] = good
        await here.pass_time(INTERVAL)
        here.ca.orders.federated["partner.test"] = TestCa(other, now=here.clock.now()).bundle()
        here.ca.add(entry("b"))
        await here.pass_time(INTERVAL)
        assert here.svid("b") is not None
        assert here.snapshots.current.bundles[partner].x509_authorities == good.x509_authorities, "the last good one"
        assert other not in here.snapshots.current.bundles


# The CA away


async def test_while_the_ca_is_away_everything_held_stays_published():
    async with insides(entry("a")) as here:
        snapshot = here.snapshots.current
        await here.ca.stop()
        await here.pass_time(timedelta(minutes=10), step=timedelta(seconds=30))
        assert here.snapshots.current == snapshot
        assert here.status.failures["sync"].times > 1


async def test_a_ca_that_comes_back_is_found_within_a_minute_and_what_was_missed_is_made_up_for():
    async with insides(entry("a")) as here:
        first = here.serial("a")
        here.ca.orders.away = True
        await here.pass_time(timedelta(minutes=40), step=timedelta(seconds=10))
        assert here.serial("a") == first
        here.ca.orders.away = False
        await here.pass_time(timedelta(minutes=1))
        assert here.serial("a") != first
        assert here.status.failures == {}


async def test_short_svids_are_renewed_in_time_after_an_outage_of_a_third_of_their_life():
    """30 s SVIDs, and a CA that is away for 10 s just when they are due: the pauses leave room for more attempts."""
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.svid_ttl = here.ca.orders.node_ttl = timedelta(seconds=30)
        await here.keeper.step()
        await here.pass_time(timedelta(seconds=14), step=SECOND)
        here.ca.orders.away = True
        await here.pass_time(timedelta(seconds=10), step=SECOND)
        here.ca.orders.away = False
        for _ in range(60):
            await here.pass_time(SECOND)
            assert here.snapshots.current.identities[0].is_usable(here.clock.now())


async def test_an_identity_that_has_no_svid_yet_takes_no_attempts_from_one_that_is_about_to_end():
    """What has nothing to lose may wait; what ends in half a minute may not wait as long as that."""
    async with insides(entry("a"), start=False) as here:
        here.ca.orders.svid_ttl = timedelta(minutes=1)
        await here.keeper.step()
        here.ca.orders.lose_reply.add("BatchNewX509SVID")
        here.ca.add(entry("b"))
        await here.pass_time(timedelta(seconds=30))
        before = here.ca.calls["BatchNewX509SVID"]
        await here.pass_time(timedelta(seconds=25))
        assert here.ca.calls["BatchNewX509SVID"] - before >= 8


async def test_an_outage_does_not_bring_a_storm_of_calls():
    async with insides(entry("a")) as here:
        here.ca.orders.away = True
        before = here.ca.calls.total()
        await here.pass_time(timedelta(minutes=20))
        assert here.ca.calls.total() - before < 40


# Restarting


async def test_after_a_restart_the_node_goes_on_with_its_identity_and_signs_anew():
    async with insides(entry("a")) as here:
        own = here.node.svid
        await here.restart()
        assert not here.snapshots.current.synced
        await here.keeper.step()
        assert here.node.svid == own
        assert here.svid("a") is not None
        assert here.ca.calls["AttestAgent"] == 1


async def test_after_a_restart_with_the_ca_away_there_is_a_bundle_and_nobody_is_denied():
    async with insides(entry("a")) as here:
        here.ca.orders.away = True
        await here.restart()
        await here.keeper.step()
        snapshot = here.snapshots.current
        assert (snapshot.bundle is not None, snapshot.synced) == (True, False)


async def test_a_full_disk_fails_the_renewal_and_not_the_agent():
    async with insides(entry("a")) as here:
        own, save = here.node.svid, here.seal.save

        async def full(_: object) -> None:
            raise StorageFull("no room to write the state")

        here.seal.save = full  # type: ignore[method-assign, assignment]
        await here.pass_time(timedelta(minutes=31), step=INTERVAL)
        assert here.node.svid == own
        assert "no room" in here.status.failures["node"].error
        assert here.svid("a").not_after > here.clock.now() + timedelta(minutes=30), "workloads are renewed all the same"
        here.seal.save = save  # type: ignore[method-assign]
        await here.pass_time(timedelta(minutes=2))
        assert here.node.svid != own


async def test_an_unexpected_error_is_a_failure_and_not_the_end(caplog: pytest.LogCaptureFixture):
    async with insides(entry("a")) as here:
        real = here.upstream.entries
        here.upstream.entries = lambda known: 1 // 0  # type: ignore[method-assign, assignment, return-value]
        await here.pass_time(INTERVAL)
        assert "sync" in here.status.failures
        here.upstream.entries = real  # type: ignore[method-assign]
        await here.pass_time(timedelta(minutes=1))
        assert here.status.failures == {}


async def test_the_keeper_runs_by_itself_on_its_clock():
    async with insides(entry("a"), start=False) as here:
        running = asyncio.create_task(here.keeper.run())
        async with asyncio.timeout(10):
            await here.keeper.first_step.wait()
        first = here.serial("a")
        await here.clock.sleepers(1)
        here.clock.advance(timedelta(minutes=31))
        async with asyncio.timeout(10):
            while here.serial("a") == first:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_ca_is_asked_once_in_every_interval_and_not_at_every_other_tick():
    """The pause after a synchronisation ends between two ticks: the keeper looks then, and not a tick later."""
    async with insides(entry("a"), start=False) as here:
        here.chance = 1.0  # the longest pause: 5.5 s
        running = asyncio.create_task(here.keeper.run())
        async with asyncio.timeout(10):
            await here.keeper.first_step.wait()
        before = here.ca.calls["SyncAuthorizedEntries"]
        for _ in range(240):
            await here.clock.sleepers(1)
            here.clock.advance(0.25)
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert here.ca.calls["SyncAuthorizedEntries"] - before == 10


async def test_the_keeper_publishes_svids_and_the_bundle_that_verifies_them_together():
    """Every snapshot in a long, busy life is coherent by itself."""
    async with insides(entry("a"), entry("b")) as here:
        checked = 0

        async def check() -> None:
            nonlocal checked
            async for snapshot in here.snapshots.follow():
                _verify_all(here, snapshot)
                checked += 1

        reader = asyncio.create_task(check())
        for turn in range(6):
            if turn % 2:
                here.ca.rotate()
            await here.pass_time(timedelta(minutes=20), step=timedelta(seconds=20))
            await asyncio.sleep(0)
        assert not reader.done()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert checked > 4


def _verify_all(here: Insides, snapshot: Snapshot) -> None:
    for identity in snapshot.identities:
        if identity.svid is not None and snapshot.bundle is not None:
            verify_x509(identity.svid.chain, BundleMap.of(snapshot.bundle), here.clock.now())


async def test_a_bundle_that_cannot_be_saved_is_used_all_the_same_and_saved_later():
    async with insides(entry("a")) as here:
        save = here.seal.save_bundle

        async def full(_: object) -> None:
            raise StorageFull("no room to write the bundle")

        here.seal.save_bundle = full  # type: ignore[method-assign, assignment]
        here.ca.rotate()
        here.ca.add(entry("b"))
        await here.pass_time(INTERVAL)
        assert here.snapshots.current.bundle == here.ca.bundle
        assert here.svid("b") is not None
        assert here.status.acknowledged == 1, "the CA must not count on what a restart would undo"
        here.seal.save_bundle = save  # type: ignore[method-assign]
        await here.pass_time(timedelta(minutes=1))
        assert here.seal.load_bundle().sequence == 2  # type: ignore[union-attr]
        assert here.status.acknowledged == 2
