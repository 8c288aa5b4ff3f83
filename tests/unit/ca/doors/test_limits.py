"""Callers wait their turn; what could never be served, or not in time, is refused."""

from __future__ import annotations

import asyncio

import pytest

from livery.runtime.caller import Caller
from livery_ca.doors.guard.limits import LONGEST_WAIT, Limits, LimitSettings, RateExceeded
from tests.fakes.clock import FakeClock, settle
from tests.unit.ca.doors.values import local, over_tcp

ATTEST = "/spire.api.server.agent.v1.Agent/AttestAgent"
RENEW = "/spire.api.server.agent.v1.Agent/RenewAgent"
STATUS = "/spire.api.server.agent.v1.Agent/PostStatus"
BATCH = "/spire.api.server.svid.v1.SVID/BatchNewX509SVID"
JWT = "/spire.api.server.svid.v1.SVID/NewJWTSVID"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def limits(clock: FakeClock) -> Limits:
    return Limits(LimitSettings(), clock)


async def waits(limits: Limits, method: str, caller: Caller, count: int = 1) -> bool:
    """Whether this call would have to wait; if so it gives up its place."""
    task = asyncio.ensure_future(limits.wait(method, caller, count))
    await settle()
    if task.done():
        task.result()
        return False
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return True


async def test_attestation_is_one_a_second_for_each_address(limits: Limits, clock: FakeClock) -> None:
    assert not await waits(limits, ATTEST, over_tcp(ip="192.0.2.1"))
    assert not await waits(limits, ATTEST, over_tcp(ip="192.0.2.2"))
    assert await waits(limits, ATTEST, over_tcp(ip="192.0.2.1"))
    clock.advance(1)
    assert not await waits(limits, ATTEST, over_tcp(ip="192.0.2.1"))


async def test_callers_that_wait_are_served_in_order_one_a_second(limits: Limits, clock: FakeClock) -> None:
    served: list[int] = []

    async def call(number: int) -> None:
        await limits.wait(ATTEST, over_tcp())
        served.append(number)

    calls = [asyncio.ensure_future(call(number)) for number in range(4)]
    await clock.sleepers(3)
    assert served == [0]
    await clock.run_for(2)
    assert served == [0, 1, 2]
    await clock.run_for(1)
    await asyncio.gather(*calls)
    assert served == [0, 1, 2, 3]


async def test_a_batch_counts_its_length(limits: Limits) -> None:
    assert not await waits(limits, BATCH, over_tcp(), 499)
    assert await waits(limits, BATCH, over_tcp(), 2)
    assert not await waits(limits, BATCH, over_tcp(), 1)


async def test_more_than_the_burst_is_refused_at_once_in_spires_words(limits: Limits) -> None:
    with pytest.raises(RateExceeded, match=r"^rate \(501\) exceeds burst size \(500\)$"):
        await limits.wait(BATCH, over_tcp(), 501)


async def test_a_caller_whose_deadline_would_pass_is_refused_instead_of_waiting(limits: Limits) -> None:
    await limits.wait(ATTEST, over_tcp(), deadline=5.0)
    with pytest.raises(RateExceeded):
        await limits.wait(ATTEST, over_tcp(), deadline=0.5)


async def test_a_caller_without_a_deadline_does_not_queue_for_ever(limits: Limits) -> None:
    """The queue of one address is as long as a deadline; the caller after it is refused, and costs nothing more."""
    tasks = [asyncio.ensure_future(limits.wait(ATTEST, over_tcp())) for _ in range(int(LONGEST_WAIT) + 2)]
    await settle()
    refused = [task for task in tasks if task.done() and task.exception()]
    assert len(refused) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_caller_that_goes_away_gives_its_place_back(limits: Limits, clock: FakeClock) -> None:
    await limits.wait(ATTEST, over_tcp())
    gone = asyncio.ensure_future(limits.wait(ATTEST, over_tcp()))
    await clock.sleepers(1)
    gone.cancel()
    (outcome,) = await asyncio.gather(gone, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError), "and nothing is done for it"
    clock.advance(1)
    assert not await waits(limits, ATTEST, over_tcp())


async def test_certificates_share_one_bucket_and_tokens_have_their_own(limits: Limits) -> None:
    await limits.wait(BATCH, over_tcp(), 500)
    assert await waits(limits, RENEW, over_tcp())
    assert not await waits(limits, JWT, over_tcp())


async def test_post_status_is_ten_a_second(limits: Limits) -> None:
    await limits.wait(STATUS, over_tcp(), 10)
    assert await waits(limits, STATUS, over_tcp())


async def test_callers_on_a_unix_socket_are_not_limited(limits: Limits) -> None:
    for _ in range(50):
        assert not await waits(limits, ATTEST, local())


async def test_a_limit_that_is_lifted_holds_nobody_up(clock: FakeClock) -> None:
    limits = Limits(LimitSettings(attestation=None), clock)
    for _ in range(50):
        assert not await waits(limits, ATTEST, over_tcp())


async def test_an_ipv6_host_is_one_address_whichever_of_its_own_it_calls_from(limits: Limits) -> None:
    assert not await waits(limits, ATTEST, over_tcp(ip="[2001:db8:1:2::1]"))
    assert await waits(limits, ATTEST, over_tcp(ip="[2001:db8:1:2:ffff::9]"))
    assert not await waits(limits, ATTEST, over_tcp(ip="[2001:db8:1:3::1]"))
    assert not await waits(limits, ATTEST, over_tcp(ip="192.0.2.1"))
    assert await waits(limits, ATTEST, over_tcp(ip="[::ffff:192.0.2.1]"))
    assert not await waits(limits, ATTEST, over_tcp(ip="[::ffff:192.0.2.2]"))


async def test_strangers_with_many_addresses_keep_strangers_out_and_no_agents(
    limits: Limits, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livery_ca.doors.guard.limits.MAX_ADDRESSES", 20)
    for number in range(20):
        await limits.wait(ATTEST, over_tcp(ip=f"198.51.100.{number}"))
    with pytest.raises(RateExceeded, match="too many addresses call at once"):
        await limits.wait(ATTEST, over_tcp(ip="192.0.2.1"))
    for method in (BATCH, JWT, STATUS):
        assert not await waits(limits, method, over_tcp(ip="192.0.2.1"))
    clock.advance(60)
    assert not await waits(limits, ATTEST, over_tcp(ip="192.0.2.1"))


async def test_addresses_that_are_idle_are_forgotten(limits: Limits, clock: FakeClock) -> None:
    for number in range(100):
        await limits.wait(ATTEST, over_tcp(ip=f"192.0.2.{number}"))
    assert len(limits) == 100
    clock.advance(61)
    await limits.wait(ATTEST, over_tcp(ip="198.51.100.1"))
    assert len(limits) == 1


async def test_an_address_that_goes_on_calling_keeps_no_idle_one_in_memory(limits: Limits, clock: FakeClock) -> None:
    for number in range(100):
        await limits.wait(ATTEST, over_tcp(ip=f"192.0.2.{number}"))
    clock.advance(40)
    queue = [asyncio.ensure_future(limits.wait(ATTEST, over_tcp(ip="192.0.2.0"))) for _ in range(30)]
    await settle()
    clock.advance(21)
    limits.forget_idle()
    assert len(limits) == 1
    assert await waits(limits, ATTEST, over_tcp(ip="192.0.2.0")), "its own bucket is the one that is left"
    for task in queue:
        task.cancel()
    await asyncio.gather(*queue, return_exceptions=True)


async def test_an_address_in_debt_is_not_forgotten(limits: Limits, clock: FakeClock) -> None:
    """Forgetting a bucket fills it, so nobody may be forgotten while others still wait for it."""
    tasks = [asyncio.ensure_future(limits.wait(ATTEST, over_tcp())) for _ in range(31)]
    await settle()
    clock.advance(29)
    limits.forget_idle()
    assert len(limits) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
