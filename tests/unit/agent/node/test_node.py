"""A node's own identity: what is on disk when, and what survives which loss (hazards 15, 22, 23)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from livery.identity import SpiffeId
from livery.runtime.files import FileNotWritten
from livery_agent.errors import CaAnswerUnusable, CaRefused, CaUnavailable, NotInForce
from livery_agent.node.seal import STATE_FILE
from tests.fakes.agent import Insides, insides

HOUR = timedelta(hours=1)


def agent_id() -> str:
    return "spiffe://example.org/spire/agent/join_token/a-token"


async def test_a_node_attests_and_keeps_key_svid_and_bundle_on_disk():
    async with insides(start=False) as here:
        bundle = await here.node.attest(here.trusted)
        assert str(here.node.svid.id) == agent_id()  # type: ignore[union-attr]
        assert here.seal.load().node == here.node._state.node
        assert here.seal.load_bundle() == bundle


async def test_hazard_22_the_key_is_on_disk_before_the_request_leaves():
    async with insides(start=False) as here:
        seen = []
        here.ca.orders.after["AttestAgent"] = lambda: seen.append(here.seal.load())
        await here.node.attest(here.trusted)
        assert seen[0].next_key is not None, "as it stood when the CA answered"
        assert seen[0].node is None
        assert here.node.svid is not None
        assert here.node.svid.private_key.private_numbers() == seen[0].next_key.private_numbers()


async def test_hazard_22_key_and_svid_are_on_disk_before_the_svids_first_use():
    """The dial is the first use: at that moment a kill -9 must find the new SVID on disk, since the old one dies."""
    async with insides(start=False) as here:
        on_disk = []
        dial = here.dial.__call__

        class Watching:
            def __call__(self, svid):
                on_disk.append((svid, here.seal.load().node))
                return dial(svid)

        here.connection._dial = Watching()
        bundle = await here.node.attest(here.trusted)
        await here.node.renew(bundle)
        assert len(on_disk) == 2
        assert all(saved is not None and saved.svid == used for used, saved in on_disk)


async def test_hazard_15_a_join_whose_reply_was_lost_is_repeated_with_the_same_key():
    """The token is spent and bound to our key: after a crash the same key asks again, and is let in."""
    async with insides(start=False) as here:
        here.ca.orders.lose_reply.add("AttestAgent")
        with pytest.raises(CaUnavailable):
            await here.node.attest(here.trusted)
        here.ca.orders.lose_reply.clear()
        await here.restart()
        await here.node.attest(here.trusted)
        assert str(here.node.svid.id) == agent_id()  # type: ignore[union-attr]


async def test_the_token_is_not_for_another_key():
    async with insides(start=False) as here:
        await here.node.attest(here.trusted)
        await here.node.forget()
        with pytest.raises(CaRefused, match="already been used"):
            await here.node.attest(here.trusted)


async def test_a_renewal_whose_reply_was_lost_leaves_the_old_svid_in_use():
    async with insides() as here:
        old = here.node.svid
        here.ca.orders.lose_reply.add("RenewAgent")
        with pytest.raises(CaUnavailable):
            await renew(here)
        assert here.node.svid == old
        here.ca.orders.lose_reply.clear()
        assert await here.upstream.entries({}) == (), "the old one still works"
        await renew(here)
        assert here.node.svid != old


async def test_hazard_22_a_renewal_that_cannot_be_saved_is_not_used():
    async with insides() as here:
        old = here.node.svid
        await here.node._next_key()  # so that only the second write fails
        state = here.directory / STATE_FILE
        kept = state.read_bytes()
        state.unlink()
        state.mkdir()
        with pytest.raises(FileNotWritten):
            await renew(here)
        assert here.node.svid == old
        assert len(here.dial.dialers) == 1, "nothing was dialled with the new SVID"
        state.rmdir()
        state.touch(mode=0o600)
        state.write_bytes(kept)
        await here.upstream.bundle(here.ca.trust_domain)
        assert len(here.ca.nodes) == 1


async def test_hazard_23_after_a_renewal_everything_goes_over_a_new_connection_as_the_new_svid():
    async with insides() as here:
        await renew(here)
        old, new = here.dial.dialers
        assert old.closed
        assert new.svid == here.node.svid
        await here.upstream.entries({})
        (row,) = here.ca.nodes.values()
        assert row.serial == here.node.svid.serial  # type: ignore[union-attr]


async def test_a_renewal_has_a_new_key():
    async with insides() as here:
        before = here.node.svid
        await renew(here)
        assert before is not None
        assert here.node.svid is not None
        assert here.node.svid.key_der() != before.key_der()


async def test_hazard_24_a_new_svid_that_is_not_valid_at_our_own_time_is_not_taken():
    async with insides() as here:
        old = here.node.svid
        here.ca.orders.skew = timedelta(minutes=10)
        with pytest.raises(NotInForce, match="not valid"):
            await renew(here)
        assert here.node.svid == old
        assert here.seal.load().node.svid == old  # type: ignore[union-attr]


async def test_an_id_that_no_node_has_is_refused():
    async with insides() as here:
        real = here.ca.sign_node
        here.ca.sign_node = lambda _, csr: real(SpiffeId.of(here.ca.trust_domain, "/orders"), csr)  # type: ignore[method-assign]
        with pytest.raises(CaAnswerUnusable, match="no node has"):
            await renew(here)


async def test_a_restarted_node_takes_up_its_identity_without_asking_the_ca():
    async with insides() as here:
        svid = here.node.svid
        here.ca.orders.away = True
        await here.restart()
        assert here.node.svid == svid
        assert here.snapshots.current.bundle is not None


async def test_a_node_whose_svid_ended_while_it_was_down_does_not_resume():
    async with insides() as here:
        here.clock.advance(HOUR)
        await here.restart()
        assert not here.node.is_alive(here.clock.now())


async def test_forgetting_removes_the_svid_from_disk():
    async with insides() as here:
        await here.node.forget()
        assert here.seal.load().node is None
        assert here.dial.dialers[-1].closed


async def test_hazard_15_a_key_to_which_the_token_may_be_bound_outlives_a_refusal():
    """The reply was lost, and then the CA's settings were wrong for a moment: the agent ends, and is started again."""
    async with insides(start=False) as here:
        here.ca.orders.lose_reply.add("AttestAgent")
        with pytest.raises(CaUnavailable):
            await here.node.attest(here.trusted)
        here.ca.orders.lose_reply.clear()
        await here.node.forget()
        await here.restart()
        await here.node.attest(here.trusted)
        assert str(here.node.svid.id) == agent_id()  # type: ignore[union-attr]


async def renew(here: Insides) -> None:
    bundle = here.snapshots.current.bundle
    assert bundle is not None
    await here.node.renew(bundle)
