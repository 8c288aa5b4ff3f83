"""The server's own identity: through the pipeline, renewed at half life or when its authority goes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from livery.identity import SpiffeId, TrustBundle, TrustDomain, verify_x509
from livery_ca.keys import KeyStoreUnavailable
from livery_ca.model import AuthorityKind, Outcome
from livery_ca.server_svid import ServerIdentity, ServerSettings
from tests.fakes.clock import START, FakeClock
from tests.fakes.key_store import FakeKeyStore
from tests.pki import TestCa
from tests.unit.ca.house import TD, House, house

X509 = AuthorityKind.X509


async def started(ca: House, clock: FakeClock, *foreign: TrustBundle) -> ServerIdentity:
    server = ServerIdentity(ca.issuer, ca.authorities, clock, ServerSettings(TD), lambda: foreign)
    await server.start()
    return server


async def test_the_server_has_its_spiffe_id_and_is_in_the_journal_as_everybody(ca: House, clock: FakeClock) -> None:
    server = await started(ca, clock)
    svid = server.svid()
    assert svid.id == SpiffeId.of(TD, "/spire/server")
    assert verify_x509(svid.chain, server.bundles(), clock.now()).id == svid.id
    settled = await ca.store.journal.get(svid.serial)
    assert settled is not None
    assert (settled.outcome, settled.intent.profile) == (Outcome.ISSUED, "server")


async def test_it_is_renewed_at_half_life_with_a_new_key_and_not_before(ca: House, clock: FakeClock) -> None:
    """Half life counts from the issue: the backdate is ignored."""
    server = await started(ca, clock)
    first = server.svid()
    clock.advance(timedelta(minutes=29, seconds=59))
    await server.tick()
    assert server.svid() is first
    clock.advance(1)
    await server.tick()
    assert server.svid() is not first
    assert server.svid().private_key.public_key() != first.private_key.public_key()
    assert server.svid().not_after == START + timedelta(minutes=90)


async def test_it_runs_by_the_clock(ca: House, clock: FakeClock) -> None:
    server = await started(ca, clock)
    first = server.svid()
    running = asyncio.create_task(server.run())
    await clock.sleepers(1)
    clock.advance(timedelta(minutes=31))
    async with asyncio.timeout(10):
        while server.svid() is first:
            await asyncio.sleep(0.01)
    running.cancel()


@pytest.mark.parametrize("fate", ["tainted", "revoked"])
async def test_it_is_renewed_at_once_when_its_authority_is(ca: House, clock: FakeClock, fate: str) -> None:
    server = await started(ca, clock)
    first, old = server.svid(), ca.authorities.x509_signer().authority_id
    prepared = await ca.authorities.prepare(X509, "test")
    await ca.authorities.activate(X509, prepared.id, "test")
    await server.tick()
    assert server.svid() is first  # an old authority is still trusted
    await (ca.authorities.taint if fate == "tainted" else ca.authorities.revoke)(X509, old, "test")
    await server.tick()
    verified = verify_x509(server.svid().chain, server.bundles(), clock.now())
    assert verified.authority == ca.authorities.x509_signer().certificate


async def test_a_renewal_that_fails_is_told_and_tried_again_and_the_old_one_serves_on(
    tmp_path: object, clock: FakeClock
) -> None:
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:  # type: ignore[operator]
        server = await started(ca, clock)
        first = server.svid()
        clock.advance(timedelta(minutes=31))
        keys.error = KeyStoreUnavailable("sealed", why="test")
        await server.tick()
        assert "sealed" in server.fault
        assert server.svid() is first
        keys.error = None
        await server.tick()
        assert server.fault == ""
        assert server.svid() is not first


async def test_a_door_sees_our_bundle_and_those_of_foreign_administrators_and_no_others(
    ca: House, clock: FakeClock
) -> None:
    """Hazard 4; and it can tell a change by identity."""
    foreign = TestCa("other.org").bundle()
    server = await started(ca, clock, foreign)
    before = server.bundles()
    assert set(before) == {TD, TrustDomain("other.org")}
    assert server.bundles() is before
    await ca.authorities.prepare(X509, "test")
    after = server.bundles()
    assert after is not before
    assert len(after[TD].x509_authorities) == 2
