"""The cache of JWT-SVIDs: half life, shared requests, and service while the CA is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from livery.identity import JwtSvid, Selector, SpiffeId
from livery_agent.errors import CaAnswerUnusable, CaUnavailable, NotInForce
from livery_agent.identities.entry import Entry
from livery_agent.identities.jwt_svids import JwtSvids, withdrawn_keys
from tests.fakes.clock import FakeClock, settle
from tests.pki import TestCa

ENTRY = Entry("e1", SpiffeId.parse("spiffe://example.org/orders"), frozenset({Selector.parse("unix:uid:1")}))
TTL = timedelta(minutes=5)


@dataclass
class Mint:
    """A source of tokens that counts, fails or waits as told."""

    clock: FakeClock
    ca: TestCa
    path: str = "/orders"
    also: list[str] = field(default_factory=list)  # audiences nobody asked for
    away: bool = False
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    takes: timedelta = timedelta(0)  # on the clock, from when it is asked
    skew: timedelta = timedelta(0)

    async def jwt_svid(self, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        self.asked.append((entry_id, tuple(audience)))
        self.clock.advance(self.takes)
        await self.gate.wait()
        if self.away:
            raise CaUnavailable("the CA is away")
        self.ca.now = self.clock.now() + self.skew
        return JwtSvid.parse_unverified(
            self.ca.jwt_svid(self.path, [*audience, *self.also], TTL, jti=str(len(self.asked)))
        )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def mint(clock: FakeClock) -> Mint:
    mint = Mint(clock, TestCa("example.org", now=clock.now()))
    mint.gate.set()
    return mint


@pytest.fixture
async def svids(mint: Mint, clock: FakeClock) -> AsyncIterator[JwtSvids]:
    svids = JwtSvids(mint, 3, clock, lambda: 0.5)
    yield svids
    await svids.close()


async def test_a_token_is_asked_for_once_and_then_served_from_memory(svids: JwtSvids, mint: Mint):
    first = await svids.get(ENTRY, ["a"])
    assert await svids.get(ENTRY, ["a"]) == first
    assert len(mint.asked) == 1


async def test_the_order_and_repetition_of_audiences_do_not_matter(svids: JwtSvids, mint: Mint):
    await svids.get(ENTRY, ["b", "a", "b"])
    await svids.get(ENTRY, ["a", "b"])
    assert mint.asked == [("e1", ("a", "b"))]


async def test_another_audience_or_entry_edition_is_another_token(svids: JwtSvids, mint: Mint):
    await svids.get(ENTRY, ["a"])
    await svids.get(ENTRY, ["b"])
    await svids.get(replace(ENTRY, revision=1), ["a"])
    assert len(mint.asked) == 3


async def test_an_edition_that_comes_back_for_another_identity_has_no_token_of_the_first(svids: JwtSvids, mint: Mint):
    """Deleted and created anew within one second, or changed once more in a CA restored from a backup."""
    await svids.get(ENTRY, ["a"])
    mint.path = "/inventory"
    other = replace(ENTRY, spiffe_id=SpiffeId.parse("spiffe://example.org/inventory"))
    assert (await svids.get(other, ["a"])).id == other.spiffe_id


async def test_a_token_is_renewed_at_half_of_its_life(svids: JwtSvids, mint: Mint, clock: FakeClock):
    first = await svids.get(ENTRY, ["a"])
    clock.advance(TTL / 2 - timedelta(seconds=1))
    assert await svids.get(ENTRY, ["a"]) == first
    clock.advance(timedelta(seconds=1))
    assert await svids.get(ENTRY, ["a"]) != first


async def test_a_token_past_its_half_life_is_served_while_the_ca_is_away(svids: JwtSvids, mint: Mint, clock: FakeClock):
    first = await svids.get(ENTRY, ["a"])
    clock.advance(TTL / 2)
    mint.away = True
    assert await svids.get(ENTRY, ["a"]) == first
    clock.advance(TTL / 2)
    with pytest.raises(CaUnavailable):
        await svids.get(ENTRY, ["a"])


async def test_a_slow_ca_is_not_waited_for_with_a_usable_token_at_hand(
    svids: JwtSvids, mint: Mint, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("livery_agent.identities.jwt_svids.PATIENCE", timedelta(milliseconds=20))
    first = await svids.get(ENTRY, ["a"])
    clock.advance(TTL / 2)
    mint.gate.clear()
    assert await svids.get(ENTRY, ["a"]) == first
    assert len(mint.asked) == 2, "the renewal goes on in the background"
    mint.gate.set()
    await settle()
    assert await svids.get(ENTRY, ["a"]) != first
    assert len(mint.asked) == 2, "and what it brings is kept"


async def test_callers_who_want_the_same_token_share_one_request(svids: JwtSvids, mint: Mint):
    mint.gate.clear()
    waiting = [asyncio.create_task(svids.get(ENTRY, ["a"])) for _ in range(50)]
    await asyncio.sleep(0)
    mint.gate.set()
    assert len({svid.token for svid in await asyncio.gather(*waiting)}) == 1
    assert len(mint.asked) == 1


async def test_a_caller_that_leaves_does_not_take_the_token_from_the_others(svids: JwtSvids, mint: Mint):
    mint.gate.clear()
    first, second = (asyncio.create_task(svids.get(ENTRY, ["a"])) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    mint.gate.set()
    assert (await second).id == ENTRY.spiffe_id
    assert len(mint.asked) == 1


async def test_what_nobody_waits_for_any_more_is_given_up(svids: JwtSvids, mint: Mint):
    """A workload that asks for another audience each time and hangs up leaves no work behind."""
    mint.gate.clear()
    asking = [asyncio.create_task(svids.get(ENTRY, [f"a{n}"])) for n in range(100)]
    await asyncio.sleep(0)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    again = asyncio.create_task(svids.get(ENTRY, ["a1"]))
    await settle()
    assert len(svids._under_way) == 1
    mint.gate.set()
    assert (await again).id == ENTRY.spiffe_id


async def test_one_entrys_many_requests_leave_places_for_others(svids: JwtSvids, mint: Mint):
    mint.gate.clear()
    asking = [asyncio.create_task(svids.get(ENTRY, [f"a{n}"])) for n in range(100)]
    await settle()
    other = asyncio.create_task(svids.get(replace(ENTRY, id="e2"), ["a"]))
    await settle()
    assert ("e2", ("a",)) in mint.asked
    assert len(mint.asked) == 9
    mint.gate.set()
    await asyncio.gather(other, *asking)


async def test_a_token_that_ended_while_a_slow_ca_was_waited_for_is_not_served(
    svids: JwtSvids, mint: Mint, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("livery_agent.identities.jwt_svids.PATIENCE", timedelta(milliseconds=20))
    await svids.get(ENTRY, ["a"])
    clock.advance(TTL - timedelta(seconds=2))
    mint.gate.clear()
    mint.takes = timedelta(seconds=5)
    with pytest.raises(CaUnavailable, match="the CA is slow"):
        await svids.get(ENTRY, ["a"])


async def test_a_new_token_that_comes_in_the_turn_in_which_patience_ends_is_served(
    svids: JwtSvids, mint: Mint, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    patience = timedelta(seconds=1)
    monkeypatch.setattr("livery_agent.identities.jwt_svids.PATIENCE", patience)
    first = await svids.get(ENTRY, ["a"])
    clock.advance(TTL / 2)
    mint.gate.clear()
    asking = asyncio.create_task(svids.get(ENTRY, ["a"]))
    while len(mint.asked) < 2:
        await asyncio.sleep(0)
    mint.gate.set()
    threading.Event().wait(patience.total_seconds() * 1.1)  # our loop stands still until both have happened
    assert await asking != first


async def test_a_token_withdrawn_while_a_slow_ca_was_waited_for_is_not_served(
    svids: JwtSvids, mint: Mint, clock: FakeClock
):
    await svids.get(ENTRY, ["a"])
    clock.advance(TTL / 2)
    mint.gate.clear()
    mint.away = True
    asking = asyncio.create_task(svids.get(ENTRY, ["a"]))
    await settle()
    svids.forget(frozenset({mint.ca.key_id}))
    mint.gate.set()
    with pytest.raises(CaUnavailable, match="the CA is away"):
        await asking


async def test_a_huge_token_is_served_and_not_kept(svids: JwtSvids, mint: Mint):
    """A thousand of them would be the agent's memory."""
    huge = [f"audience-{n}" for n in range(2000)]
    assert len((await svids.get(ENTRY, huge)).audience) == 2000
    assert len(svids) == 0


async def test_the_token_least_recently_used_goes_first(svids: JwtSvids, mint: Mint):
    for audience in "abc":
        await svids.get(ENTRY, [audience])
    await svids.get(ENTRY, ["a"])
    await svids.get(ENTRY, ["d"])
    assert len(svids) == 3
    mint.asked.clear()
    await svids.get(ENTRY, ["a"])
    await svids.get(ENTRY, ["b"])
    assert [audience for _, audience in mint.asked] == [("b",)]


async def test_a_token_for_another_identity_or_audience_is_refused(svids: JwtSvids, mint: Mint):
    mint.path = "/other"
    with pytest.raises(CaAnswerUnusable):
        await svids.get(ENTRY, ["a"])
    mint.path, mint.also = "/orders", ["b"]
    with pytest.raises(CaAnswerUnusable):
        await svids.get(ENTRY, ["a"])
    assert len(svids) == 0


async def test_hazard_24_a_token_that_has_expired_at_our_own_time_is_refused_and_the_skew_named(
    svids: JwtSvids, mint: Mint
):
    mint.skew = -timedelta(hours=1)
    with pytest.raises(NotInForce, match="expired at this node's time"):
        await svids.get(ENTRY, ["a"])


async def test_tokens_of_a_withdrawn_key_are_dropped_at_once(svids: JwtSvids, mint: Mint):
    await svids.get(ENTRY, ["a"])
    svids.forget(frozenset({"some-other-key"}))
    assert len(svids) == 1
    svids.forget(frozenset({mint.ca.key_id}))
    assert len(svids) == 0


def test_keys_are_withdrawn_when_tainted_or_gone_but_not_when_still_unknown():
    """A token may be signed by a key that is newer than our bundle: that is no reason to distrust it."""
    ca, newer = TestCa(), TestCa()
    before = ca.bundle()
    tainted = ca.bundle(jwt_authorities=(replace(ca.jwt_authority(), tainted=True),))
    assert withdrawn_keys(before, before) == frozenset()
    assert withdrawn_keys(before, tainted) == {ca.key_id}
    assert withdrawn_keys(before, newer.bundle()) == {ca.key_id}
    assert withdrawn_keys(None, newer.bundle()) == frozenset()
