"""What the CA says about this node (SPIRE's agent status details), and what the keeper makes of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from livery.identity import X509Svid
from livery.runtime.files import StorageFull
from livery_agent.attest.node.x509pop import X509PopAttestor
from livery_agent.errors import NodeLost
from tests.fakes.agent import INTERVAL, Insides, entry, insides
from tests.fakes.ca import REASON
from tests.fakes.node_files import Files

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def attestor(directory: Path) -> X509PopAttestor:
    return Files(directory).attestor()


@pytest.mark.parametrize(
    "reason", [REASON.AGENT_EXPIRED, REASON.AGENT_NOT_ATTESTED, REASON.AGENT_NOT_ACTIVE, REASON.AGENT_MUST_REATTEST]
)
async def test_a_node_that_can_attests_again_in_place_and_loses_nothing(reason: int, tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        assert here.node.may_reattest
        serial, own = here.serial("a"), here.node.svid
        here.ca.orders.refuse_next = [reason]
        await here.pass_time(INTERVAL + SECOND * 2)
        assert here.node.svid != own
        assert here.serial("a") == serial, "workloads noticed nothing"
        assert here.status.failures == {}


@pytest.mark.parametrize("reason", [REASON.AGENT_NOT_ATTESTED, REASON.AGENT_NOT_ACTIVE])
async def test_a_node_that_cannot_attest_again_forgets_its_svid_and_ends(reason: int):
    async with insides(entry("a")) as here:
        here.ca.orders.refuse = reason
        with pytest.raises(NodeLost):
            await here.pass_time(INTERVAL)
        assert here.seal.load().node is None


async def test_a_node_that_is_refused_and_whose_evidence_is_refused_too_forgets_its_svid_and_ends(
    tmp_path: Path,
):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        here.ca.forget_nodes()
        here.ca.orders.refuse_join = (grpc.StatusCode.PERMISSION_DENIED, "nodeattestor(x509pop): it has expired")
        with pytest.raises(NodeLost, match="it has expired"):
            await here.pass_time(INTERVAL * 2)
        assert here.seal.load().node is None


async def test_a_banned_node_forgets_its_svid_and_ends_even_if_it_could_attest_again(tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        here.ca.orders.refuse = REASON.AGENT_BANNED
        with pytest.raises(NodeLost, match="banned"):
            await here.pass_time(INTERVAL)
        assert here.seal.load().node is None


async def test_a_banned_node_ends_also_when_the_disk_is_full():
    async with insides(entry("a")) as here:

        async def full(_: object) -> None:
            raise StorageFull("no room to write the state")

        here.seal.save = full  # type: ignore[method-assign, assignment]
        here.ca.orders.refuse = REASON.AGENT_BANNED
        with pytest.raises(NodeLost, match="banned"):
            await here.pass_time(INTERVAL)


async def test_a_node_that_the_ca_calls_expired_and_that_is_not_by_its_own_clock_reports_the_skew_and_stays():
    """There is no way back from giving a join-token identity up; a wrong clock at the CA is no reason to."""
    async with insides(entry("a")) as here:
        own = here.node.svid
        here.ca.orders.refuse = REASON.AGENT_EXPIRED
        await here.pass_time(INTERVAL * 2)
        assert here.node.svid == own
        assert "expired" in here.status.skew
        here.ca.orders.refuse = None
        await here.pass_time(timedelta(minutes=2))
        assert here.status.failures == {}


async def test_a_plain_refusal_without_a_reason_is_retried():
    async with insides(entry("a")) as here:
        here.ca.orders.refuse = REASON.UNKNOWN
        await here.pass_time(timedelta(minutes=1))
        assert here.node.svid is not None
        here.ca.orders.refuse = None
        await here.pass_time(timedelta(minutes=2))
        assert here.status.failures == {}


async def test_an_evicted_x509pop_node_comes_back_and_a_ca_that_lost_its_store_is_attested_to_anew(tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        here.ca.forget_nodes()
        await here.pass_time(INTERVAL + SECOND * 2)
        assert len(here.ca.nodes) == 1
        assert here.status.failures == {}


async def test_a_node_that_can_attest_again_does_so_instead_of_renewing(tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        own = here.node.svid
        await here.pass_time(timedelta(minutes=31), step=INTERVAL)
        assert here.node.svid != own
        assert here.ca.calls["RenewAgent"] == 0
        assert here.ca.calls["AttestAgent"] == 2


async def test_hazard_23_a_call_refused_while_this_node_attests_anew_is_made_again_on_the_new_connection(
    tmp_path: Path,
):
    """The CA has the new certificate on record as soon as it has signed it; we have it a round trip later."""
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        here.ca.orders.slow.add("GetBundle")
        here.ca.orders.held.clear()
        here.clock.advance(timedelta(minutes=31))
        fetched = here.ca.calls["GetBundle"]
        attesting = asyncio.create_task(here.keeper.step())
        async with asyncio.timeout(10):
            while here.ca.calls["GetBundle"] == fetched:
                await asyncio.sleep(0.001)
            asking = asyncio.create_task(here.upstream.jwt_svid("a", ["db"]))
            while not here.ca.calls["NewJWTSVID"]:
                await asyncio.sleep(0.001)
            here.ca.orders.held.set()
            assert (await asking).audience == ("db",)
            await attesting
        assert here.ca.calls["NewJWTSVID"] == 2, "once on the old connection and once on the new one"


async def test_a_node_whose_svid_ended_while_the_ca_was_away_attests_again(tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        here.ca.orders.away = True
        await here.pass_time(timedelta(hours=2), step=timedelta(minutes=1))
        here.ca.orders.away = False
        await here.pass_time(timedelta(minutes=2))
        assert here.svid("a").not_after > here.clock.now()


async def test_evidence_that_is_missing_for_a_moment_does_not_end_a_node_that_still_serves(tmp_path: Path):
    """An operator replaces the node's certificate: between two files there may be a moment without one."""
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        key = tmp_path / "node.key"
        kept = key.read_bytes()
        key.unlink()
        await here.pass_time(timedelta(minutes=31), step=INTERVAL)
        assert "node.key" in here.status.failures["node"].error
        key.touch(mode=0o600)
        key.write_bytes(kept)
        await here.pass_time(timedelta(minutes=2))
        assert here.status.failures == {}


async def test_a_node_that_was_refused_asks_for_nothing_until_it_has_attested_again(tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        (tmp_path / "node.key").unlink()
        here.ca.forget_nodes()
        await here.pass_time(INTERVAL * 2)
        asked = here.ca.calls.total()
        here.ca.revise("a")
        await here.pass_time(timedelta(minutes=2))
        assert here.ca.calls.total() == asked
        assert "node.key" in here.status.failures["node"].error


async def test_a_certificate_the_ca_turns_away_in_tls_leads_to_attesting_again(tmp_path: Path):
    """The CA dropped the authority that signed ours: there is no RPC left to tell us so."""
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        own = turned_away(here)
        await here.pass_time(timedelta(seconds=15))
        assert here.ca.calls["AttestAgent"] == 1, "twice may be chance"
        await here.pass_time(timedelta(seconds=45))
        assert here.node.svid != own
        assert here.status.failures == {}


@pytest.mark.parametrize("by_token", [True, False])
async def test_a_node_attests_again_only_if_it_can_and_if_it_was_its_certificate_that_was_turned_away(
    tmp_path: Path, by_token: bool
):
    """A spent token is of no use; and of a CA that is away every node would ask for a new certificate at its return."""
    async with insides(entry("a"), attestor=None if by_token else attestor(tmp_path)) as here:
        turned_away(here)
        if not by_token:
            here.dial.dialers[-1].last_refusal = "Connection refused"
        await here.pass_time(timedelta(minutes=2))
        assert here.ca.calls["AttestAgent"] == 1


async def test_a_node_that_was_turned_away_and_cannot_attest_keeps_what_the_ca_may_take_again(tmp_path: Path):
    """Something between us and the CA closed our connections; that our evidence has ended too is no reason to end."""
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        own = turned_away(here)
        here.ca.orders.refuse_join = (grpc.StatusCode.PERMISSION_DENIED, "nodeattestor(x509pop): it has expired")
        await here.pass_time(timedelta(minutes=2))
        assert "it has expired" in here.status.failures["node"].error
        here.ca.orders.turned_away.clear()
        await here.pass_time(timedelta(minutes=2))
        assert here.node.svid == own
        assert here.status.failures == {}


def turned_away(here: Insides) -> X509Svid | None:
    """From now on the CA does not take this node's certificate; as the dialer tells it."""
    own = here.node.svid
    assert own is not None
    here.ca.orders.turned_away.add(own.serial)
    here.dial.dialers[-1].last_refusal = "it refused our identity or our TLS: unknown ca"
    return own


async def test_a_node_whose_evidence_is_refused_at_half_of_its_life_goes_on_with_what_it_holds(tmp_path: Path):
    """Somebody changed the CA's settings: every node of the fleet asks within minutes, and none of them must end."""
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        own = here.node.svid
        here.ca.orders.refuse_join = (grpc.StatusCode.FAILED_PRECONDITION, "could not find node attestor type")
        await here.pass_time(timedelta(minutes=55), step=INTERVAL)
        assert here.node.svid == own
        assert "could not find" in here.status.failures["node"].error
        assert here.svid("a").not_after > here.clock.now() + HOUR / 3, "workloads are renewed meanwhile"
        here.ca.orders.refuse_join = None
        await here.pass_time(timedelta(minutes=2))
        assert here.node.svid != own
        assert here.status.failures == {}


async def test_a_node_whose_evidence_is_still_refused_when_its_life_is_over_ends(tmp_path: Path):
    async with insides(entry("a"), attestor=attestor(tmp_path)) as here:
        here.ca.orders.refuse_join = (grpc.StatusCode.PERMISSION_DENIED, "nodeattestor(x509pop): it has expired")
        with pytest.raises(NodeLost, match="it has expired"):
            await here.pass_time(timedelta(minutes=62), step=INTERVAL)


async def test_an_identity_that_ended_by_a_clock_that_was_wrong_is_found_again_at_the_next_start():
    """The token is spent: nothing but the file on disk brings this node back."""
    async with insides(entry("a")) as here:
        own, now = here.node.svid, here.clock.now()
        here.clock.set_wall(now + 2 * HOUR)
        with pytest.raises(NodeLost, match="already been used"):
            await here.keeper.step()
        here.clock.set_wall(now + SECOND)
        await here.restart()
        await here.keeper.step()
        assert here.node.svid == own
        assert here.svid("a") is not None


async def test_a_node_that_starts_with_a_clock_ahead_goes_on_once_the_clock_is_right():
    """As machines do whose clock is set a while after their agent has started."""
    async with insides(entry("a")) as here:
        own, now = here.node.svid, here.clock.now()
        here.clock.set_wall(now + 2 * HOUR)
        here.ca.orders.away = True  # its certificate has ended too, by our clock
        await here.restart()
        await here.keeper.step()
        here.ca.orders.away = False
        here.clock.set_wall(now + SECOND)
        await here.pass_time(timedelta(seconds=30))
        assert here.node.svid == own
        assert here.svid("a") is not None
