"""The keeper of the authorities: first start, restart, rotation in time, crashes, lost keys, manual moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from livery.identity import TrustBundle, TrustDomain, X509Authority
from livery_ca.authorities import AuthoritySettings
from livery_ca.authorities.states import IllegalMove
from livery_ca.certificates import assemble
from livery_ca.certificates.algorithm import KeyType
from livery_ca.certificates.lint import LintRefused
from livery_ca.keys import KeyMissing, KeyStore, KeyUnreadable
from livery_ca.keys.memory import MemoryKeyStore
from livery_ca.model import Authority, AuthorityKind, AuthorityState
from livery_ca.store.errors import StoreForeign
from livery_ca.upstreams import CaRequest, UpstreamError, UpstreamUnavailable
from livery_ca.upstreams.self_signed import SelfSigned
from tests.fakes.clock import START, FakeClock
from tests.fakes.key_store import FakeKeyStore
from tests.fakes.upstream import FakeUpstream
from tests.unit.ca.house import SETTINGS, TD, House, house

X509, JWT = AuthorityKind.X509, AuthorityKind.JWT
HOUR = timedelta(hours=1)


def slots_of(ca: House, kind: AuthorityKind) -> list[Authority]:
    """The living authorities of a kind."""
    held = ca.authorities.slots(kind)
    return [each for each in (held.active, held.prepared, *held.others) if each is not None]


async def test_a_first_start_makes_one_authority_of_each_kind_and_publishes_it(ca: House) -> None:
    bundle = ca.authorities.current_bundle()
    assert bundle.trust_domain == TD
    assert [a.subject_key_id for a in bundle.x509_authorities] == [ca.authorities.x509_signer().authority_id]
    assert [k.key_id for k in bundle.jwt_authorities] == [ca.authorities.jwt_signer().authority_id]
    assert [k.expires_at for k in bundle.jwt_authorities] == [ca.authorities.jwt_signer().not_after]
    assert await ca.store.bundles.get(TD) == bundle
    assert bundle.refresh_hint == timedelta(minutes=5)
    assert len(ca.authorities.jwt_signer().authority_id) == 32
    told = dict(line.rsplit(" ", 1) for line in ca.metrics.render().decode().splitlines())
    for kind in AuthorityKind:
        ends = told[f'livery_ca_authority_not_after_seconds{{kind="{kind.value}"}}']
        assert float(ends) == (START + 24 * HOUR).timestamp()


async def test_a_restart_resumes_the_same_trust_domain_and_keys(tmp_path: Path, clock: FakeClock) -> None:
    """Nothing is made anew, and the bundle's sequence stands."""
    async with house(tmp_path / "s", clock) as first:
        before = first.authorities.current_bundle()
        signer = first.authorities.x509_signer()
    clock.advance(HOUR)
    async with house(tmp_path / "s", clock) as second:
        assert second.authorities.current_bundle() == before
        assert second.authorities.x509_signer() == signer


async def test_a_state_of_another_trust_domain_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    async with house(tmp_path / "s", clock):
        pass
    with pytest.raises(StoreForeign):
        async with house(tmp_path / "s", clock, settings=AuthoritySettings(TrustDomain("other.org"))):
            pass


async def test_authorities_are_prepared_activated_and_retired_in_time(ca: House, clock: FakeClock) -> None:
    """A day of ticks: published at half life, signing at five sixths, gone a day after its end."""
    first = ca.authorities.x509_signer().authority_id
    clock.advance(12 * HOUR)
    await ca.authorities.tick()
    assert len(ca.authorities.current_bundle().x509_authorities) == 1
    clock.advance(1)
    await ca.authorities.tick()
    assert len(ca.authorities.current_bundle().x509_authorities) == 2
    assert len(ca.authorities.current_bundle().jwt_authorities) == 2
    assert ca.authorities.x509_signer().authority_id == first
    prepared = ca.authorities.slots(X509).prepared
    assert prepared is not None
    clock.advance(8 * HOUR)
    await ca.authorities.tick()
    assert ca.authorities.x509_signer().authority_id == prepared.id
    old = ca.authorities.slots(X509).old
    assert old is not None
    assert old.id == first
    clock.advance(28 * HOUR)
    await ca.authorities.tick()
    assert first not in {a.subject_key_id for a in ca.authorities.current_bundle().x509_authorities}
    with pytest.raises(KeyMissing):
        ca.keys.public_key(old.key_id)


async def test_the_ticks_run_by_the_clock_and_the_sequence_counts_each_change(ca: House, clock: FakeClock) -> None:
    """TDB-2: one more for each change of content, none for a quiet tick."""
    running = asyncio.create_task(ca.authorities.run())
    await clock.sleepers(1)
    before = ca.authorities.current_bundle()
    await ca.authorities.tick()
    assert ca.authorities.current_bundle() is before
    clock.advance(12 * HOUR + timedelta(seconds=11))
    async with asyncio.timeout(10):
        while len(ca.authorities.current_bundle().jwt_authorities) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    assert before.sequence is not None
    assert ca.authorities.current_bundle().sequence == before.sequence + 2  # one X.509, one JWT authority more


@pytest.mark.parametrize("move", ["prepare", "activate"])
async def test_a_move_that_is_cancelled_while_it_is_written_has_happened_or_has_not(
    move: str, ca: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store carries out what it was handed, however often its caller is cancelled: memory holds what it holds."""
    successor = await ca.authorities.prepare(X509, "test")
    apply, handed_over, go_on = ca.store.authorities.apply, asyncio.Event(), asyncio.Event()

    async def applying(*write: Any) -> TrustBundle:
        handed_over.set()
        await go_on.wait()
        return await apply(*write)

    monkeypatch.setattr(ca.store.authorities, "apply", applying)
    if move == "prepare":
        moving = asyncio.create_task(ca.authorities.prepare(X509, "test"))
    else:
        moving = asyncio.create_task(ca.authorities.activate(X509, successor.id, "test"))
    await handed_over.wait()
    for _ in range(2):  # a shutdown, and its time-out
        moving.cancel()
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await moving
    await ca.store.authorities.claim(TD)  # writes are carried out in order: this one is after it
    kept = {each.id: each.state for each in await ca.store.authorities.list() if each.kind is X509}
    assert {each.id: each.state for each in slots_of(ca, X509)} == kept
    assert ca.authorities.current_bundle() == await ca.store.bundles.get(TD)
    assert (ca.authorities.x509_signer().authority_id == successor.id) is (move == "activate")


async def test_readers_tell_a_change_by_identity(ca: House) -> None:
    signer, bundle, bundles = ca.authorities.x509_signer(), ca.authorities.current_bundle(), ca.authorities.bundles()
    await ca.authorities.prepare(JWT, "test")
    assert ca.authorities.x509_signer() is signer
    assert ca.authorities.current_bundle() is not bundle
    assert ca.authorities.bundles() is not bundles
    assert ca.authorities.bundles()[TD] is ca.authorities.current_bundle()
    successor = await ca.authorities.prepare(X509, "test")
    bundle, bundles = ca.authorities.current_bundle(), ca.authorities.bundles()
    await ca.authorities.activate(X509, successor.id, "test")
    assert ca.authorities.x509_signer() is not signer
    assert ca.authorities.current_bundle() is bundle, "what it holds is as before"
    assert ca.authorities.bundles() is bundles


async def test_an_authority_that_slept_past_its_end_starts_with_a_new_one(tmp_path: Path, clock: FakeClock) -> None:
    """The machine was off for three days: the old root stays a day after its end, the new one signs at once."""
    async with house(tmp_path / "s", clock) as first:
        before = first.authorities.x509_signer()
    clock.advance(timedelta(days=3))
    async with house(tmp_path / "s", clock) as second:
        after = second.authorities.x509_signer()
        assert after.authority_id != before.authority_id
        assert after.not_after > clock.now()
        assert len(second.authorities.current_bundle().x509_authorities) == 1


async def test_a_clock_that_jumps_ahead_by_a_year_takes_no_authority_out_of_the_bundle(
    ca: House, clock: FakeClock
) -> None:
    """Everybody else's clock is right: what was issued yesterday must still verify, and the key still sign."""
    before = ca.authorities.x509_signer()
    clock.set_wall(START + timedelta(days=366))
    await ca.authorities.tick()
    assert ca.authorities.x509_signer() != before
    assert before.authority_id in {a.subject_key_id for a in ca.authorities.current_bundle().x509_authorities}
    assert ca.keys.public_key(before.key_id)


async def test_an_upstream_that_fails_is_told_and_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    """Meanwhile the active authority goes on signing, and no key is left behind."""
    made: list[FakeUpstream] = []

    def upstream(keys: KeyStore) -> FakeUpstream:
        made.append(FakeUpstream(keys))
        return made[0]

    async with house(tmp_path / "s", clock, upstream=upstream) as ca:
        made[0].error = UpstreamUnavailable("the upstream is down", why="test")
        clock.advance(13 * HOUR)
        await ca.authorities.tick()
        assert "the upstream is down" in ca.authorities.fault
        assert b"livery_ca_authority_failures_total 1.0" in ca.metrics.render()
        living = [*slots_of(ca, X509), *slots_of(ca, JWT)]
        assert len(list((tmp_path / "s" / "keys").iterdir())) == len(living)
        made[0].error = None
        await ca.authorities.tick()
        assert ca.authorities.fault == ""
        assert len(ca.authorities.current_bundle().x509_authorities) == 2


async def test_an_upstream_that_fails_holds_up_no_jwt_key(tmp_path: Path, clock: FakeClock) -> None:
    """Tokens need no upstream: their key is prepared and signs in time, however long the other kind fails."""
    made: list[FakeUpstream] = []

    def upstream(keys: KeyStore) -> FakeUpstream:
        made.append(FakeUpstream(keys))
        return made[0]

    async with house(tmp_path / "s", clock, upstream=upstream) as ca:
        first = ca.authorities.jwt_signer()
        made[0].error = UpstreamUnavailable("the upstream is down", why="test")
        for hours in (13, 8):
            clock.advance(hours * HOUR)
            await ca.authorities.tick()
            assert "the upstream is down" in ca.authorities.fault
        assert ca.authorities.jwt_signer() != first
        assert ca.authorities.slots(X509).prepared is None


async def test_what_an_upstream_returns_is_checked_before_anything_is_published(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A certificate for another key, of another time, of another domain, or without a root."""
    keys = MemoryKeyStore()
    key = keys.generate("x", KeyType.EC_P256)
    other = SelfSigned(keys).mint(CaRequest(TD, "x", key, HOUR, START))
    made: list[FakeUpstream] = []

    def upstream(store: KeyStore) -> FakeUpstream:
        made.append(FakeUpstream(store))
        return made[0]

    async with house(tmp_path / "s", clock, upstream=upstream) as ca:
        made[0].answer = other
        with pytest.raises(UpstreamError, match="not for our key"):
            await ca.authorities.prepare(X509, "test")

        made[0].answer = None
        made[0].asked = {"at": clock.now() + HOUR}
        with pytest.raises(UpstreamError, match="not valid now"):
            await ca.authorities.prepare(X509, "test")
        made[0].asked = {"trust_domain": TrustDomain("other.org")}
        with pytest.raises(UpstreamError, match="another trust domain"):
            await ca.authorities.prepare(X509, "test")
        made[0].asked, made[0].answered = {}, {"roots": ()}
        with pytest.raises(UpstreamError, match="without a root"):
            await ca.authorities.prepare(X509, "test")
        assert len(ca.authorities.current_bundle().x509_authorities) == 1


async def test_a_ca_certificate_that_is_not_sound_is_not_published(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own too goes the way of every other: linted before it is signed, and looked at afterwards."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        keys.tamper = lambda signatures: [bytes(len(signature)) for signature in signatures]
        with pytest.raises(UpstreamError, match="not sound"):
            await ca.authorities.prepare(X509, "test")
        keys.tamper = None
        signed = len(keys.signed)
        monkeypatch.setattr(assemble, "_CA_EXTENSIONS", assemble._CA_EXTENSIONS[:1])
        with pytest.raises(LintRefused, match="ca_is_a_ca"):
            await ca.authorities.prepare(X509, "test")
        assert len(keys.signed) == signed
        assert len(ca.authorities.current_bundle().x509_authorities) == 1


async def test_a_key_whose_authority_was_never_written_is_destroyed_at_the_next_start(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Killed between making the key and writing the authority: the journal names the key, nothing else does."""

    class Killed(BaseException):
        pass

    made: list[FakeUpstream] = []

    def upstream(keys: KeyStore) -> FakeUpstream:
        made.append(FakeUpstream(keys))
        return made[0]

    async with house(tmp_path / "s", clock, upstream=upstream) as ca:
        made[0].error = Killed()
        with pytest.raises(Killed):
            await ca.authorities.prepare(X509, "test")
        assert len(list((tmp_path / "s" / "keys").iterdir())) == 3
    async with house(tmp_path / "s", clock):
        assert len(list((tmp_path / "s" / "keys").iterdir())) == 2


async def test_a_key_that_cannot_be_deleted_ends_no_tick_and_is_destroyed_at_a_later_start(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The authority is out of the bundle by then; what is left is told, and forgotten by nobody."""
    async with house(tmp_path / "s", clock) as ca:
        prepared = await ca.authorities.prepare(X509, "test")
        await ca.authorities.activate(X509, prepared.id, "test")
        old = ca.authorities.slots(X509).old
        assert old is not None
        file = tmp_path / "s" / "keys" / f"{old.key_id}.key"
        file.unlink()
        file.mkdir()
        clock.advance(49 * HOUR)
        await ca.authorities.tick()
        assert "could not delete" in ca.authorities.fault
        assert old.id not in {a.subject_key_id for a in ca.authorities.current_bundle().x509_authorities}
        await ca.authorities.tick()
        assert ca.authorities.fault == ""
        file.rmdir()
        file.touch(0o600)
    async with house(tmp_path / "s", clock):
        assert not file.exists()


async def test_a_lost_key_store_stops_the_start_and_is_not_papered_over(tmp_path: Path, clock: FakeClock) -> None:
    async with house(tmp_path / "s", clock) as ca:
        key_id = ca.authorities.x509_signer().key_id
    hidden = tmp_path / "hidden"
    (tmp_path / "s" / "keys" / f"{key_id}.key").rename(hidden)
    with pytest.raises(KeyMissing) as refusal:
        async with house(tmp_path / "s", clock):
            pass
    assert refusal.value.fix
    hidden.rename(tmp_path / "s" / "keys" / f"{key_id}.key")
    async with house(tmp_path / "s", clock) as again:
        assert again.authorities.x509_signer().key_id == key_id


async def test_a_key_store_of_another_state_stops_the_start(tmp_path: Path, clock: FakeClock) -> None:
    """The right names with other keys in them."""

    class Renamed(MemoryKeyStore):
        durable = True

    keys = Renamed()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        signer = ca.authorities.x509_signer()
    keys.generate(signer.key_id, KeyType.EC_P256)
    with pytest.raises(KeyUnreadable, match="another one"):
        async with house(tmp_path / "s", clock, keys=keys):
            pass


async def test_keys_in_memory_end_with_the_process_and_their_certificates_stay_trusted(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with house(tmp_path / "s", clock, keys=MemoryKeyStore()) as first:
        before = first.authorities.x509_signer()
    async with house(tmp_path / "s", clock, keys=MemoryKeyStore()) as second:
        assert second.authorities.x509_signer().authority_id != before.authority_id
        trusted = {a.subject_key_id for a in second.authorities.current_bundle().x509_authorities}
        assert before.authority_id in trusted
        with pytest.raises(KeyMissing):  # and it cannot be called back without its key
            await second.authorities.activate(X509, before.authority_id, "test")


async def test_a_rotation_by_hand_goes_through_taint_to_revocation(ca: House) -> None:
    first = ca.authorities.x509_signer().authority_id
    prepared = await ca.authorities.prepare(X509, "compromise")
    await ca.authorities.activate(X509, prepared.id, "compromise")
    assert ca.authorities.x509_signer().authority_id == prepared.id
    await ca.authorities.taint(X509, first, "compromise")
    assert [a.tainted for a in ca.authorities.current_bundle().x509_authorities if a.subject_key_id == first] == [True]
    with pytest.raises(IllegalMove):
        await ca.authorities.activate(X509, first, "no way back")
    revoked = await ca.authorities.revoke(X509, first, "compromise")
    assert revoked.state is AuthorityState.RETIRED
    assert [a.subject_key_id for a in ca.authorities.current_bundle().x509_authorities] == [prepared.id]
    events = [(e.event, e.why) for e in await ca.store.authorities.journal() if e.authority_id == first]
    assert [name for name, _ in events] == ["prepared", "active", "old", "tainted", "retired", "destroyed"]
    assert {e["event"] for e in ca.audit.events} >= {"authority.tainted", "authority.retired", "authority.activate"}


async def test_a_rotation_can_be_taken_back(ca: House) -> None:
    first = ca.authorities.x509_signer()
    prepared = await ca.authorities.prepare(X509, "test")
    await ca.authorities.activate(X509, prepared.id, "test")
    await ca.authorities.activate(X509, first.authority_id, "taken back")
    assert ca.authorities.x509_signer() == first


async def test_preparing_again_retires_the_one_that_never_signed(ca: House) -> None:
    first = await ca.authorities.prepare(X509, "test")
    second = await ca.authorities.prepare(X509, "test")
    trusted = [a.subject_key_id for a in ca.authorities.current_bundle().x509_authorities]
    assert first.id not in trusted
    with pytest.raises(KeyMissing):
        ca.keys.public_key(first.key_id)
    assert set(trusted) == {second.id, ca.authorities.x509_signer().authority_id}


async def test_the_active_authority_is_neither_tainted_nor_revoked(ca: House) -> None:
    for move in (ca.authorities.taint, ca.authorities.revoke):
        with pytest.raises(IllegalMove):
            await move(X509, ca.authorities.x509_signer().authority_id, "test")


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_every_key_type_makes_a_working_authority(tmp_path: Path, clock: FakeClock, key_type: KeyType) -> None:
    settings = replace(SETTINGS, ca_key_type=key_type, jwt_key_type=key_type)
    async with house(tmp_path / "s", clock, settings=settings, keys=MemoryKeyStore()) as ca:
        (anchor,) = ca.authorities.current_bundle().x509_authorities
        assert isinstance(anchor, X509Authority)
        expected = {"ec-p256": "ES256", "ec-p384": "ES384"}.get(key_type.value, "RS256")
        assert ca.authorities.jwt_signer().algorithm == expected


async def test_the_audit_trail_is_asked_before_anything_is_made(ca: House) -> None:
    """It fails closed: no record, no authority."""
    ca.audit.broken = True
    kinds: Sequence[AuthorityKind] = list(AuthorityKind)
    for kind in kinds:
        with pytest.raises(Exception, match="audit"):
            await ca.authorities.prepare(kind, "test")
    assert len(ca.authorities.current_bundle().x509_authorities) == 1
