"""The pipeline: its types and order, what one failing item or a leaving caller does to the rest, what is on record."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, SpiffeId, VerifiedX509Svid, verify_x509
from livery_ca.certificates import assemble
from livery_ca.certificates.lint import LintRefused
from livery_ca.certificates.profile import Profile
from livery_ca.issuance import verify as verification
from livery_ca.issuance.errors import AlreadyRedeemed, ClockBehind, IssuerClosed, NotSound, RequestRefused
from livery_ca.issuance.journal import Journalled
from livery_ca.issuance.pipeline import STEPS
from livery_ca.issuance.prepare import Linted
from livery_ca.issuance.request import Issued, IssueRequest, Refused
from livery_ca.keys import KeyStoreUnavailable
from livery_ca.ledger import merkle
from livery_ca.model import AuthorityKind, JoinToken, Node, Outcome
from livery_ca.store.errors import JournalConflict, NodeBanned, StoreFull, TokenUsed
from livery_ca.store.journal import Journal
from livery_ca.store.writes import AttestNode, SpendToken, Write
from tests.fakes.clock import START, FakeClock
from tests.fakes.key_store import FakeKeyStore
from tests.unit.ca.house import TD, House, house, workload


def metric(ca: House, line: str) -> bool:
    return line in ca.metrics.render().decode()


async def outcomes(ca: House) -> list[Outcome | None]:
    return [settled.outcome for settled in (await ca.store.journal.list()).items]


def refused(answer: Issued | Refused) -> LiveryError:
    assert isinstance(answer, Refused)
    return answer.error


async def test_an_issued_certificate_is_on_record_with_who_why_and_which_key(ca: House, clock: FakeClock) -> None:
    request = workload(entry_id="e1", authorized_by="policy 7")
    (issued,) = await ca.issue(request)
    settled = await ca.store.journal.get(issued.serial)
    assert settled is not None
    intent = settled.intent
    assert (settled.outcome, settled.settled_at) == (Outcome.ISSUED, clock.now())
    assert (intent.spiffe_id, intent.entry_id, intent.authorized_by) == (request.spiffe_id, "e1", "policy 7")
    assert (intent.asked_by, intent.authority_id) == (request.asked_by, ca.authorities.x509_signer().authority_id)
    certificate = x509.load_der_x509_certificate(issued.chain_ders[0])
    assert certificate.tbs_certificate_bytes == intent.tbs
    assert certificate.signature == settled.signature
    assert certificate.serial_number == issued.serial == intent.serial


async def test_each_journalled_tbs_is_a_leaf_of_the_log_and_the_root_commits_to_them(ca: House) -> None:
    """Hazard 16: the log is appended at JOURNAL, so a signed orphan is inside the tree."""
    issued = await ca.issue(*(workload() for _ in range(20)))
    assert [i.log_index for i in issued] == list(range(20))
    tbs = [x509.load_der_x509_certificate(i.chain_ders[0]).tbs_certificate_bytes for i in issued]
    hashes = await ca.store.leaves.hashes(0, await ca.store.leaves.size())
    assert merkle.root(hashes) == merkle.root(merkle.leaf_hash(each) for each in tbs)


async def test_answers_keep_the_order_of_the_requests(ca: House) -> None:
    """Sound and refused ones mixed, across several portions of work."""
    requests = [workload(f"/w{i}", ttl=timedelta(seconds=3 if i % 7 == 0 else 60)) for i in range(50)]
    answers = await ca.issuer.issue(requests)
    for i, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        if i % 7 == 0:
            assert isinstance(answer, Refused)
        else:
            assert isinstance(answer, Issued)
            assert answer.spiffe_id == request.spiffe_id


async def test_an_item_that_fails_lint_fails_alone_and_leaves_no_trace(ca: House) -> None:
    """It was never journalled: the log has no leaf for it."""
    good, bad, other = await ca.issuer.issue([workload(), workload("/spire/x"), workload()])
    assert isinstance(good, Issued)
    assert isinstance(other, Issued)
    assert isinstance(refused(bad), LintRefused)
    assert await ca.store.leaves.size() == 2
    assert metric(ca, 'livery_ca_certificates_total{outcome="refused",profile="workload"} 1.0')


async def test_an_item_that_breaks_the_builder_fails_alone(ca: House) -> None:
    """Groups are of several callers: nobody is to fail by what somebody else asked for."""
    unheard_of: Any = (5,)
    good, bad = await asyncio.gather(
        ca.issuer.issue([workload()]), ca.issuer.issue([workload(dns_names=unheard_of), workload()])
    )
    assert isinstance(good[0], Issued)
    assert isinstance(refused(bad[0]), RequestRefused)
    assert isinstance(bad[1], Issued)


async def test_a_group_that_fails_as_a_whole_is_counted_and_its_intents_stay_open(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A key store that breaks in a way of its own: whether it signed is not known before the next start."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        keys.error = RuntimeError("a bug of its own")
        with pytest.raises(RuntimeError):
            await ca.issuer.issue([workload(), workload()])
        assert metric(ca, 'livery_ca_certificates_total{outcome="failed",profile="workload"} 2.0')
        assert await outcomes(ca) == [None, None]
        keys.error = None
        await ca.issue(workload())


async def test_nothing_asked_is_nothing_answered(ca: House) -> None:
    assert await ca.issuer.issue([]) == []


async def test_serials_differ_and_a_retry_is_a_new_intent(ca: House) -> None:
    """Hazard 16: the same request again is another serial."""
    request = workload()
    serials = {issued.serial for _ in range(5) for issued in await ca.issue(request, request)}
    assert len(serials) == 10


async def test_a_serial_that_exists_is_refused_by_the_journal_before_anything_is_signed(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Should the source of random numbers ever repeat itself."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys, serials=lambda: 42) as ca:
        await ca.issue(workload())
        before = len(keys.signed)
        with pytest.raises(JournalConflict):
            await ca.issuer.issue([workload()])
        assert len(keys.signed) == before
        assert await outcomes(ca) == [Outcome.ISSUED]


async def test_a_key_store_that_fails_refuses_the_items_and_settles_them(tmp_path: Path, clock: FakeClock) -> None:
    """And the next request is served as soon as it answers again."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        keys.error = KeyStoreUnavailable("sealed", why="test")
        answers = await ca.issuer.issue([workload(), workload()])
        assert {refused(a).kind for a in answers} == {Kind.UNAVAILABLE}
        assert await outcomes(ca) == [Outcome.FAILED, Outcome.FAILED]
        assert metric(ca, 'livery_ca_intents_unissued{outcome="failed"} 2.0')
        keys.error = None
        await ca.issue(workload())


async def test_a_forged_signature_is_withheld(tmp_path: Path, clock: FakeClock) -> None:
    """Hazard 17: what does not verify is never handed out, and is on record as signed."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        keys.tamper = lambda signatures: [signatures[0], bytes(len(signatures[1]))]
        good, forged = await ca.issuer.issue([workload(), workload()])
        assert isinstance(good, Issued)
        assert isinstance(refused(forged), NotSound)
        assert await outcomes(ca) == [Outcome.ISSUED, Outcome.WITHHELD]
        (withheld,) = (await ca.store.journal.list(Outcome.WITHHELD)).items
        assert withheld.signature is not None
        assert withheld.reason
        assert metric(ca, 'livery_ca_intents_unissued{outcome="withheld"} 1.0')


async def test_a_certificate_on_record_is_handed_out_though_what_was_refused_cannot_be_counted(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is for an operator; whoever asked must not lose a certificate by it."""

    async def broken(_: Journal) -> dict[Outcome | None, int]:
        raise StoreFull("no descriptor left to read with", why="test")

    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        keys.tamper = lambda signatures: [signatures[0], bytes(len(signatures[1]))]
        monkeypatch.setattr(Journal, "unsettled_counts", broken)
        good, forged = await ca.issuer.issue([workload(), workload()])
        assert isinstance(good, Issued)
        assert isinstance(refused(forged), NotSound)


async def test_swapped_signatures_are_withheld(tmp_path: Path, clock: FakeClock) -> None:
    """A key store that mixes up its batch: each signature is sound, and on the wrong certificate."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        keys.tamper = lambda signatures: signatures[::-1]
        answers = await ca.issuer.issue([workload(), workload()])
        assert all(isinstance(refused(a), NotSound) for a in answers)


async def test_a_key_store_that_returns_too_few_signatures_is_not_believed(tmp_path: Path, clock: FakeClock) -> None:
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        keys.tamper = lambda signatures: signatures[:1]
        answers = await ca.issuer.issue([workload(), workload()])
        assert all(isinstance(refused(a), NotSound) for a in answers)
        assert await outcomes(ca) == [Outcome.WITHHELD, Outcome.WITHHELD]


async def test_a_signature_by_another_of_our_authorities_is_withheld(tmp_path: Path, clock: FakeClock) -> None:
    """The bundle trusts it, and it is still not what was journalled."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        other = await ca.authorities.prepare(AuthorityKind.X509, "test")
        sign = FakeKeyStore.sign
        keys.tamper = lambda _: []

        def by_the_other(messages: list[bytes]) -> list[bytes]:
            keys.tamper = None
            return sign(keys, other.key_id, keys.signed[-len(messages) or -1 :])

        keys.tamper = by_the_other
        (answer,) = await ca.issuer.issue([workload()])
        assert isinstance(refused(answer), NotSound)


async def test_a_sound_certificate_that_is_not_the_journalled_one_is_withheld(
    ca: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hazard 17: byte equality. It verifies, it names the right workload, and it is another serial number."""
    (before,) = await ca.issue(workload())
    monkeypatch.setattr(assemble, "join", lambda *_: before.chain_ders[0])
    (answer,) = await ca.issuer.issue([workload()])
    assert isinstance(refused(answer), NotSound)
    assert "the TBS changed on the way" in refused(answer).why
    assert await outcomes(ca) == [Outcome.ISSUED, Outcome.WITHHELD]


@pytest.mark.parametrize("found", ["somebody else", "another anchor"])
async def test_a_validator_that_is_content_is_not_enough(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """Hazard 17: whom it names, and who signed it, are looked at here; a validator looks for any path that will do."""

    def content(chain: list[x509.Certificate], bundles: BundleMap, at: datetime) -> VerifiedX509Svid:
        svid = verify_x509(sound, bundles, at)
        return (
            replace(svid, id=SpiffeId.of(TD, "/other")) if found == "somebody else" else replace(svid, authority=None)
        )

    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        (before,) = await ca.issue(workload())
        sound = [x509.load_der_x509_certificate(before.chain_ders[0])]
        monkeypatch.setattr(verification, "verify_x509", content)
        if found == "another anchor":
            keys.tamper = lambda signatures: [signature[:-1] + bytes([signature[-1] ^ 1]) for signature in signatures]
        (answer,) = await ca.issuer.issue([workload()])
        assert isinstance(refused(answer), NotSound)
        assert await outcomes(ca) == [Outcome.ISSUED, Outcome.WITHHELD]


async def test_extra_writes_stand_with_the_record_or_fall_with_it(ca: House) -> None:
    """Hazard 15: one transaction. A refused write withholds that certificate and touches no other."""
    agent = replace(workload("/spire/agent/n"), profile=Profile.AGENT)

    def attest(issued: Issued) -> tuple[Write, ...]:
        return (AttestNode(Node(agent.spiffe_id, "x", str(issued.serial), issued.not_after, can_reattest=True)),)

    (issued,) = await ca.issue(replace(agent, on_record=attest))
    node = await ca.store.nodes.get(agent.spiffe_id)
    assert node is not None
    assert node.serial == str(issued.serial)
    await ca.store.nodes.ban(agent.spiffe_id)
    banned, other = await ca.issuer.issue([replace(agent, on_record=attest), workload()])
    assert isinstance(refused(banned), NodeBanned)
    assert isinstance(other, Issued)
    assert await outcomes(ca) == [Outcome.ISSUED, Outcome.WITHHELD, Outcome.ISSUED]


async def test_of_fifty_keys_that_use_one_join_token_at_once_exactly_one_gets_in_and_may_repeat(ca: House) -> None:
    """Hazard 15: every one of them is signed, one is recorded and handed out, the others are withheld."""
    await ca.store.tokens.create(JoinToken("one-token", START + timedelta(hours=1)))
    agent = SpiffeId.of(TD, "/spire/agent/join_token/one-token")

    def join(key_hash: bytes) -> IssueRequest:
        def on_record(issued: Issued) -> tuple[Write, ...]:
            node = Node(agent, "join_token", str(issued.serial), issued.not_after, can_reattest=False)
            return SpendToken("one-token", key_hash, START), AttestNode(node)

        return workload(profile=Profile.AGENT, spiffe_id=agent, on_record=on_record)

    keys = [bytes([i]) * 32 for i in range(50)]
    answers = [a for (a,) in await asyncio.gather(*(ca.issuer.issue([join(key)]) for key in keys))]
    winners = [(key, a) for key, a in zip(keys, answers, strict=True) if isinstance(a, Issued)]
    assert len(winners) == 1
    assert all(isinstance(a.error, TokenUsed) for a in answers if isinstance(a, Refused))
    key, first = winners[0]
    node = await ca.store.nodes.get(agent)
    assert node is not None
    assert node.serial == str(first.serial)
    (again,) = await ca.issue(join(key))
    node = await ca.store.nodes.get(agent)
    assert node is not None
    assert node.serial == str(again.serial)


async def test_a_callers_broken_record_is_its_own_fault(ca: House) -> None:
    """An exception in `on_record` withholds that item; the group is settled."""

    def broken(_: Issued) -> tuple[Write, ...]:
        raise ZeroDivisionError

    first, second = await ca.issuer.issue([workload(on_record=broken), workload()])
    assert refused(first).kind is Kind.INTERNAL
    assert isinstance(second, Issued)
    assert await outcomes(ca) == [Outcome.WITHHELD, Outcome.ISSUED]


async def test_a_caller_that_leaves_after_journal_changes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    """Hazard 16: from JOURNAL on, cancelling the call no longer stops its intent."""
    keys = FakeKeyStore()
    journalled = asyncio.Event()

    def note(step: str) -> None:
        if step == "after:journal":
            journalled.set()

    async with house(tmp_path / "s", clock, keys=keys, checkpoint=note) as ca:
        keys.gate = threading.Event()
        call = asyncio.create_task(ca.issuer.issue([workload(), workload()]))
        await asyncio.wait_for(journalled.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await outcomes(ca) == [None, None]
        keys.gate.set()
        await ca.issuer.close()
        assert await outcomes(ca) == [Outcome.ISSUED, Outcome.ISSUED]


async def test_a_caller_that_leaves_before_journal_leaves_nothing(tmp_path: Path, clock: FakeClock) -> None:
    async with house(tmp_path / "s", clock) as ca:
        requests = [workload() for _ in range(40)]
        call = asyncio.create_task(ca.issuer.issue(requests))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await ca.issuer.close()
        assert await ca.store.leaves.size() == 0


async def test_closing_waits_for_what_is_journalled_and_takes_no_more(tmp_path: Path, clock: FakeClock) -> None:
    keys = FakeKeyStore()
    journalled = asyncio.Event()
    async with house(
        tmp_path / "s", clock, keys=keys, checkpoint=lambda step: journalled.set() if step == "after:journal" else None
    ) as ca:
        keys.gate = threading.Event()
        call = asyncio.create_task(ca.issuer.issue([workload()]))
        await asyncio.wait_for(journalled.wait(), 10)
        closing = asyncio.create_task(ca.issuer.close())
        await asyncio.sleep(0)
        assert not closing.done()
        with pytest.raises(IssuerClosed):
            await ca.issuer.issue([workload()])
        keys.gate.set()
        await closing
        assert isinstance((await call)[0], Issued)


async def test_a_store_that_cannot_journal_stops_everything_before_the_key_is_used(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A full disk: nothing is signed that is not written down, and all goes on once there is room."""
    keys = FakeKeyStore()
    async with house(tmp_path / "s", clock, keys=keys) as ca:
        with ca.store._database._engines[0].begin() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        before = len(keys.signed)
        with pytest.raises(StoreFull):
            for _ in range(50):
                await ca.issuer.issue([workload() for _ in range(20)])
        assert len(keys.signed) - before == sum(o is not None for o in await outcomes(ca))
        with ca.store._database._engines[0].begin() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        await ca.issue(workload())


async def test_open_intents_of_the_last_run_become_unknown_and_are_counted(tmp_path: Path, clock: FakeClock) -> None:
    keys = FakeKeyStore()
    keys.durable = True
    journalled = asyncio.Event()
    async with house(
        tmp_path / "s", clock, keys=keys, checkpoint=lambda step: journalled.set() if step == "after:journal" else None
    ) as ca:
        keys.gate = threading.Event()
        call = asyncio.create_task(ca.issuer.issue([workload()]))
        await asyncio.wait_for(journalled.wait(), 10)
        for task in tuple(ca.issuer._groups._tasks):  # as a killed process would end it
            task.cancel()
        await asyncio.gather(call, return_exceptions=True)
        keys.gate.set()
    async with house(tmp_path / "s", clock, keys=keys) as again:
        assert await outcomes(again) == [Outcome.UNKNOWN]
        assert metric(again, 'livery_ca_intents_unissued{outcome="unknown"} 1.0')
        assert metric(again, 'livery_ca_intents_unissued{outcome="open"} 0.0')


async def test_a_clock_behind_the_journal_issues_nothing(tmp_path: Path, clock: FakeClock) -> None:
    """Hazard 18, across a restart: the journal remembers the time."""
    async with house(tmp_path / "s", clock) as ca:
        await ca.issue(workload())
        clock.set_wall(START - timedelta(seconds=11))
        with pytest.raises(ClockBehind):
            await ca.issuer.issue([workload()])
    async with house(tmp_path / "s", clock) as again:
        with pytest.raises(ClockBehind):
            await again.issuer.issue([workload()])
        assert await again.store.leaves.size() == 1
        clock.set_wall(START)
        await again.issue(workload())


async def test_a_clock_that_jumped_ahead_is_said_and_stops_nothing(ca: House, clock: FakeClock) -> None:
    assert ca.guard.problem == ""
    clock.set_wall(START + timedelta(hours=1))
    assert "jumped" in ca.guard.problem
    assert ca.issuer.problem == ""
    await ca.issue(workload())


@pytest.mark.parametrize(
    ("step", "why"), [(-timedelta(seconds=10), "clock is behind"), (timedelta(days=1), "cannot sign now")]
)
async def test_what_stops_all_issuing_is_said_before_anybody_asks(
    ca: House, clock: FakeClock, step: timedelta, why: str
) -> None:
    """A clock behind what was issued, an authority that ended without a successor."""
    await ca.issue(workload())
    clock.set_wall(START + step)
    assert why in ca.issuer.problem
    clock.set_wall(START)
    assert ca.issuer.problem == ""


async def test_an_intent_bears_the_time_at_which_it_was_written_down(tmp_path: Path, clock: FakeClock) -> None:
    """Not that at which its group began: another group may have been journalled since."""

    def pass_time(step: str) -> None:
        if step == "after:prepare":
            clock.advance(3)

    async with house(tmp_path / "s", clock, checkpoint=pass_time) as ca:
        (issued,) = await ca.issue(workload())
        settled = await ca.store.journal.get(issued.serial)
        assert settled is not None
        assert settled.intent.journalled_at == START + timedelta(seconds=3)


async def test_journalled_times_never_go_back_along_the_log(ca: House, clock: FakeClock) -> None:
    """Groups run side by side, and the wall clock trembles."""

    async def tremble() -> None:
        for step in range(20):
            clock.set_wall(START + timedelta(seconds=step - 3 * (step % 2)))
            await asyncio.sleep(0.002)

    await asyncio.gather(tremble(), *(ca.issuer.issue([workload()]) for _ in range(10)))
    times = [settled.intent.journalled_at for settled in (await ca.store.journal.list()).items]
    assert times == sorted(times)


async def test_a_group_is_issued_under_one_authority_though_a_rotation_comes_between(
    tmp_path: Path, clock: FakeClock
) -> None:
    """What was linted for one authority is never signed by another."""
    keys = FakeKeyStore()
    journalled = asyncio.Event()
    async with house(
        tmp_path / "s", clock, keys=keys, checkpoint=lambda step: journalled.set() if step == "after:journal" else None
    ) as ca:
        first = ca.authorities.x509_signer()
        prepared = await ca.authorities.prepare(AuthorityKind.X509, "test")
        keys.gate = threading.Event()
        call = asyncio.create_task(ca.issuer.issue([workload()]))
        await asyncio.wait_for(journalled.wait(), 10)
        await ca.authorities.activate(AuthorityKind.X509, prepared.id, "test")
        keys.gate.set()
        (issued,) = await call
        assert isinstance(issued, Issued)
        x509.load_der_x509_certificate(issued.chain_ders[0]).verify_directly_issued_by(first.certificate)
        (after,) = await ca.issue(workload())
        new = ca.authorities.x509_signer()
        x509.load_der_x509_certificate(after.chain_ders[0]).verify_directly_issued_by(new.certificate)


async def test_the_steps_are_reached_in_their_order(tmp_path: Path, clock: FakeClock) -> None:
    reached: list[str] = []
    async with house(tmp_path / "s", clock, checkpoint=reached.append) as ca:
        await ca.issue(workload())
    assert tuple(reached) == STEPS


async def test_a_small_request_is_not_held_up_by_a_big_one(tmp_path: Path, clock: FakeClock) -> None:
    """Hazard 19: the work of a batch of 500 is done in portions, between which others have their turn."""
    order: list[str] = []
    async with house(tmp_path / "s", clock) as ca:
        big = [workload(f"/b{i}") for i in range(500)]

        async def issue(name: str, requests: list[object]) -> None:
            await ca.issuer.issue(requests)  # type: ignore[arg-type]
            order.append(name)

        first = asyncio.create_task(issue("big", list(big)))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, issue("small", [workload()]))
    assert order == ["small", "big"]


def test_what_was_not_linted_cannot_be_journalled_and_what_was_not_journalled_cannot_be_signed() -> None:
    """The types have one maker each; anybody else gets a TypeError."""
    with pytest.raises(TypeError, match="only PREPARE"):
        Linted(workload(), None, b"", None, object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only JOURNAL"):
        Journalled(None, None, object())  # type: ignore[arg-type]


async def test_a_journalled_intent_is_signed_once(ca: House, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Journalled] = []
    redeem = Journalled.redeem

    def watching(self: Journalled) -> bytes:
        seen.append(self)
        return redeem(self)

    monkeypatch.setattr(Journalled, "redeem", watching)
    await ca.issue(workload())
    with pytest.raises(AlreadyRedeemed):
        redeem(seen[0])
