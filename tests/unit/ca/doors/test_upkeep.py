"""What the authority does by itself: forgetting what has ended, and reporting what is wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from livery.identity import SpiffeId
from livery.runtime.metrics import Metrics
from livery_ca.authorities import Authorities, AuthorityParts, AuthoritySettings
from livery_ca.config import CaConfig
from livery_ca.doors.guard.limits import Limits, LimitSettings
from livery_ca.health import Health, Trouble
from livery_ca.issuance.pipeline import Issuer, IssuerParts
from livery_ca.issuance.timekeeping import TimeGuard
from livery_ca.issuance.workers import Workers
from livery_ca.keys.memory import MemoryKeyStore
from livery_ca.model import JoinToken, JwtRecord
from livery_ca.server_svid import ServerIdentity, ServerSettings
from livery_ca.store import Store
from livery_ca.store.errors import StoreUnavailable
from livery_ca.upkeep import PRUNE, Upkeep, UpkeepParts
from livery_ca.upstreams import UpstreamUnavailable
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import START, FakeClock
from tests.fakes.upstream import FakeUpstream
from tests.unit.ca.doors.values import OURS, an_entry, over_tcp
from tests.unit.ca.store.values import intent

KEPT = timedelta(days=3)
HOUR = timedelta(hours=1)


@dataclass
class Scene:
    store: Store
    clock: FakeClock
    health: Health
    upkeep: Upkeep
    metrics: Metrics
    authorities: Authorities
    identity: ServerIdentity
    upstream: FakeUpstream
    limits: Limits


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    clock, metrics, keys = FakeClock(), Metrics(), MemoryKeyStore()
    store = await Store.open(tmp_path / "state" / "ca.sqlite", clock=clock)
    guard, workers, health = TimeGuard(clock), Workers(), Health(metrics)
    upstream, limits = FakeUpstream(keys), Limits(LimitSettings(), clock)
    parts = AuthorityParts(store.authorities, keys, upstream, clock, guard, metrics, RecordingAudit())
    authorities = Authorities(parts, AuthoritySettings(OURS))
    await authorities.start()
    issuer = Issuer(IssuerParts(store.journal, keys, authorities, guard, workers, metrics))
    identity = ServerIdentity(issuer, authorities, clock, ServerSettings(OURS))
    upkeep = Upkeep(
        UpkeepParts(
            store=store,
            keys=keys,
            guard=guard,
            authorities=authorities,
            issuer=issuer,
            identity=identity,
            limits=limits,
            health=health,
            clock=clock,
            journal_kept=KEPT,
        )
    )
    yield Scene(store, clock, health, upkeep, metrics, authorities, identity, upstream, limits)
    await issuer.close()
    await workers.close()
    await store.close()


async def test_entries_and_tokens_are_forgotten_at_their_end_and_not_before(scene: Scene) -> None:
    end = START + timedelta(hours=1)
    await scene.store.entries.create(an_entry("ends", "/p", "/a", expires_at=end))
    await scene.store.entries.create(an_entry("stays", "/p", "/b"))
    await scene.store.tokens.create(JoinToken("token", end))
    await scene.upkeep.prune()
    assert await scene.store.entries.count() == 2
    scene.clock.advance(timedelta(hours=1))
    await scene.upkeep.prune()
    assert [entry.id for entry in (await scene.store.entries.list()).items] == ["stays"]
    assert await scene.store.tokens.get("token") is None


async def test_changes_are_kept_for_half_a_day(scene: Scene) -> None:
    await scene.store.entries.create(an_entry("a", "/p", "/a"))
    await scene.upkeep.prune()
    assert (await scene.store.changes.since(0)).complete
    scene.clock.advance(timedelta(hours=13))
    await scene.store.entries.create(an_entry("b", "/p", "/b"))
    await scene.upkeep.prune()
    assert not (await scene.store.changes.since(0)).complete


async def test_the_journal_is_kept_beyond_the_end_of_what_was_issued_and_then_forgotten(scene: Scene) -> None:
    token = JwtRecord(b"h" * 32, SpiffeId.parse("spiffe://example.org/a"), ("x",), "k", "agent", START, START + HOUR)
    for since_its_end, left in ((KEPT, 1), (KEPT + timedelta(seconds=1), 0)):
        await scene.store.journal.record_jwt(token)
        scene.clock.advance(START + HOUR + since_its_end - scene.clock.now())
        await scene.upkeep.prune()
        assert await scene.store.journal.prune(START + 2 * HOUR) == left


async def test_a_clock_that_jumps_ahead_by_a_year_makes_nothing_forgotten(scene: Scene) -> None:
    """What lives by the stopwatch stays: it would be gone for good when the clock is set right."""
    end = START + timedelta(hours=2)
    await scene.store.entries.create(an_entry("ends", "/p", "/a", expires_at=end))
    await scene.store.tokens.create(JoinToken("token", end))
    token = JwtRecord(b"h" * 32, SpiffeId.parse("spiffe://example.org/a"), ("x",), "k", "agent", START, START + HOUR)
    await scene.store.journal.record_jwt(token)
    scene.clock.advance(HOUR)
    scene.clock.set_wall(START + timedelta(days=366))
    await scene.upkeep.prune()
    assert await scene.store.entries.count() == 1
    assert await scene.store.tokens.get("token") is not None
    assert (await scene.store.changes.since(0)).complete
    assert await scene.store.journal.prune(START + 2 * HOUR) == 1, "it was there to be forgotten"
    scene.clock.set_wall(START + HOUR)
    scene.clock.advance(HOUR)
    await scene.upkeep.prune()
    assert await scene.store.entries.count() == 0


async def test_it_prunes_by_itself(scene: Scene) -> None:
    await scene.store.entries.create(an_entry("ends", "/p", "/a", expires_at=START + timedelta(minutes=1)))
    running = asyncio.ensure_future(scene.upkeep.run())
    await scene.clock.sleepers(1)
    async with asyncio.timeout(10):
        while await scene.store.entries.count():
            await scene.clock.run_for(PRUNE)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_clock_that_jumps_is_reported_and_certificates_are_still_issued(scene: Scene) -> None:
    await scene.upkeep.look()
    assert scene.health.troubles == {}
    scene.clock.set_wall(START + timedelta(hours=2))
    await scene.upkeep.look()
    assert "jumped by +7200 s" in scene.health.troubles["clock"].why
    assert scene.health.is_ready


async def test_what_cannot_be_issued_at_this_time_is_failing_and_recovers(scene: Scene) -> None:
    """Ready means that it can issue: not with an authority that has ended, whoever is to blame."""
    scene.clock.set_wall(START + timedelta(days=2))
    await scene.upkeep.look()
    assert "active authority cannot sign now" in scene.health.troubles["issuing"].why
    assert not scene.health.is_ready
    await scene.authorities.tick()
    await scene.upkeep.look()
    assert "issuing" not in scene.health.troubles
    assert scene.health.is_ready


async def test_an_intent_that_stays_open_is_counted(scene: Scene) -> None:
    """As after a full disk took its outcome away."""
    await scene.store.journal.append([intent(1)])
    await scene.upkeep.look()
    assert b'livery_ca_intents_unissued{outcome="open"} 1.0' in scene.metrics.render()


async def test_an_authority_that_could_not_be_prepared_is_reported_and_the_active_one_signs_on(scene: Scene) -> None:
    scene.upstream.error = UpstreamUnavailable("the upstream is down", why="test")
    scene.clock.advance(13 * HOUR)
    await scene.authorities.tick()
    await scene.upkeep.look()
    assert "the upstream is down" in scene.health.troubles["authorities"].why
    assert scene.health.is_ready
    scene.upstream.error = None
    await scene.authorities.tick()
    await scene.upkeep.look()
    assert "authorities" not in scene.health.troubles


async def test_addresses_that_call_no_more_are_forgotten_though_nobody_else_calls(scene: Scene) -> None:
    await scene.limits.wait("/spire.api.server.agent.v1.Agent/AttestAgent", over_tcp())
    scene.clock.advance(61)
    await scene.upkeep.look()
    assert len(scene.limits) == 0


async def test_a_write_that_failed_is_reported_until_one_succeeds(scene: Scene) -> None:
    def full(_: Connection) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error"))

    with pytest.raises(StoreUnavailable):
        await scene.store._database.write(full)
    await scene.upkeep.look()
    assert "disk I/O error" in scene.health.troubles["store"].why
    assert not scene.health.is_ready
    await scene.upkeep.prune()
    await scene.upkeep.look()
    assert scene.health.is_ready


async def test_a_server_certificate_that_could_not_be_renewed_is_reported(scene: Scene) -> None:
    scene.clock.advance(timedelta(days=2))
    await scene.identity.tick()
    await scene.upkeep.look()
    assert "cannot sign now" in scene.health.troubles["server_svid"].why
    await scene.authorities.tick()
    await scene.identity.tick()
    await scene.upkeep.look()
    assert scene.health.troubles == {}


async def test_a_store_that_is_gone_is_reported_and_ends_nothing(scene: Scene) -> None:
    running = asyncio.ensure_future(scene.upkeep.run())
    await scene.clock.sleepers(1)
    await scene.store.close()
    async with asyncio.timeout(10):
        while scene.health.is_ready:
            await scene.clock.run_for(PRUNE)
    assert "closed" in scene.health.troubles["store"].why
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_the_longest_time_the_journal_may_be_kept_can_be_counted_back() -> None:
    """Beyond the calendar there is no time to prune by, and the loop that tries would end the authority."""
    longest = timedelta(days=36_600)
    assert START - CaConfig(trust_domain="example.org", journal_kept=longest).journal_kept < START
    with pytest.raises(ValidationError, match="journal_kept"):
        CaConfig(trust_domain="example.org", journal_kept=longest + timedelta(days=1))


def test_health_is_degraded_by_a_trouble_and_failing_by_one_that_stops_issuing() -> None:
    health, told = Health(Metrics()), []
    health.on_change(told.append)
    assert health.as_document() == {"state": "ok", "troubles": {}}
    health.report("authorities", Trouble("late"))
    assert (health.as_document()["state"], health.is_ready) == ("degraded", True)
    health.report("store", Trouble("away", failing=True))
    assert (health.as_document()["state"], health.is_ready) == ("failing", False)
    health.report("store", None)
    health.report("authorities", None)
    assert health.as_document()["state"] == "ok"
    assert told == [True, False, True, True]


def test_a_trouble_that_goes_on_is_told_once() -> None:
    health, told = Health(Metrics()), []
    health.on_change(told.append)
    for _ in range(3):
        health.report("store", Trouble("away"))
    health.report("clock", None)
    assert told == [True]


def test_a_trouble_is_a_number_while_it_lasts() -> None:
    metrics = Metrics()
    health = Health(metrics)
    health.report("store", Trouble("away"))
    assert b'livery_ca_trouble{name="store"} 1.0' in metrics.render()
    health.report("store", None)
    assert b'livery_ca_trouble{name="store"} 0.0' in metrics.render()
