"""The life of an authority: SPIRE's formulas, the legal moves, the bundle that follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from livery.identity import TrustDomain
from livery_ca.authorities import states
from livery_ca.authorities.states import IllegalMove, Slots, Step, UnknownAuthority
from livery_ca.config import CaConfig
from livery_ca.model import Authority, AuthorityKind, AuthorityState
from tests.fakes.clock import START
from tests.pki import TestCa

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CA = TestCa("example.org").bundle().x509_authorities[0].certificate
OTHER_CA = TestCa("example.org").bundle().x509_authorities[0].certificate


def authority(name: str, state: AuthorityState, issued_at: datetime = START, life: timedelta = DAY) -> Authority:
    return Authority(
        id=name,
        kind=AuthorityKind.X509,
        state=state,
        key_id=f"key-{name}",
        issued_at=issued_at,
        not_before=issued_at - timedelta(seconds=10),
        not_after=issued_at + life,
        chain=(CA,),
        roots=(CA,),
    )


def slots(*authorities: Authority) -> Slots:
    return Slots.of(authorities, AuthorityKind.X509)


def due(held: Slots, now: datetime) -> tuple[Step, Authority | None]:
    """What is due by a clock that nobody doubts."""
    return states.due(held, now, now)


@pytest.mark.parametrize(
    ("life", "prepare", "activate"),
    [
        (DAY, 12 * HOUR, 20 * HOUR),  # halves and sixths
        (60 * DAY, 30 * DAY, 53 * DAY),  # 30 d is exactly the half; 7 d are less than a sixth
        (365 * DAY, 335 * DAY, 358 * DAY),  # 30 d and 7 d before the end
    ],
)
def test_the_moments_are_spires(life: timedelta, prepare: timedelta, activate: timedelta) -> None:
    """NotAfter - min(lifetime/2, 30 d) and NotAfter - min(lifetime/6, 7 d), counted from issue and not the backdate."""
    active = authority("a", AuthorityState.ACTIVE, life=life)
    assert states.prepare_at(active) == START + prepare
    assert states.activate_at(active) == START + activate


@pytest.mark.parametrize(("life", "longest"), [(DAY, 4 * HOUR), (365 * DAY, 7 * DAY)])
def test_the_longest_svid_that_is_never_cut_is_a_sixth_of_the_ca(life: timedelta, longest: timedelta) -> None:
    """What the configuration warns by is what a CA has left when its successor begins to sign."""
    assert CaConfig(trust_domain="example.org", ca_ttl=life).uncut_ttl == longest
    active = authority("a", AuthorityState.ACTIVE, life=life)
    assert active.not_after - states.activate_at(active) == longest


def test_what_is_due_follows_the_clock() -> None:
    """Prepare after half the life, activate after five sixths, and not a moment before."""
    active = authority("a", AuthorityState.ACTIVE)
    prepared = authority("b", AuthorityState.PREPARED, START + 12 * HOUR)
    tick = timedelta(microseconds=1)
    assert due(slots(active), START + 12 * HOUR) == (Step.NOTHING, None)
    assert due(slots(active), START + 12 * HOUR + tick) == (Step.PREPARE, None)
    assert due(slots(active, prepared), START + 20 * HOUR) == (Step.NOTHING, None)
    assert due(slots(active, prepared), START + 20 * HOUR + tick) == (Step.ACTIVATE, prepared)


def test_without_an_active_authority_one_is_made_or_the_prepared_one_taken() -> None:
    prepared = authority("b", AuthorityState.PREPARED)
    assert due(slots(), START) == (Step.PREPARE, None)
    assert due(slots(prepared), START) == (Step.ACTIVATE, prepared)
    assert due(slots(prepared), START + DAY) == (Step.PREPARE, None)  # it has ended unused


def test_after_a_long_sleep_a_new_authority_is_made_though_an_ended_one_was_prepared() -> None:
    active = authority("a", AuthorityState.ACTIVE)
    prepared = authority("b", AuthorityState.PREPARED, START + 12 * HOUR)
    assert due(slots(active, prepared), START + 10 * DAY) == (Step.PREPARE, None)


@pytest.mark.parametrize("state", [AuthorityState.OLD, AuthorityState.TAINTED])
def test_an_authority_leaves_the_bundle_a_day_after_its_end(state: AuthorityState) -> None:
    active = authority("a", AuthorityState.ACTIVE, START + 40 * HOUR)
    ended = authority("z", state)
    assert due(slots(active, ended), START + 48 * HOUR) == (Step.NOTHING, None)
    assert due(slots(active, ended), START + 48 * HOUR + timedelta(seconds=1)) == (Step.RETIRE, ended)


def test_an_authority_is_not_retired_by_a_clock_that_jumped_ahead() -> None:
    """What is prepared and activated too early can be mended, what is retired cannot."""
    active = authority("a", AuthorityState.ACTIVE)
    ended = authority("b", AuthorityState.OLD, START - DAY)
    assert states.due(slots(active, ended), START + 365 * DAY, START + 2 * DAY) == (Step.PREPARE, None)
    fresh = authority("c", AuthorityState.ACTIVE, START + 365 * DAY)
    assert states.due(slots(fresh, ended), START + 365 * DAY, START + DAY) == (Step.NOTHING, None)
    assert states.due(slots(fresh, ended), START + 365 * DAY, START + DAY + HOUR) == (Step.RETIRE, ended)


def test_the_legal_moves_are_these_and_no_others() -> None:
    """prepared → active → old → (tainted) → retired, and back from old to active to take a rotation back."""
    legal = {
        ("prepared", "active"),
        ("prepared", "retired"),
        ("active", "old"),
        ("old", "active"),
        ("old", "tainted"),
        ("old", "retired"),
        ("tainted", "retired"),
    }
    for start in AuthorityState:
        for end in AuthorityState:
            subject = authority("a", start)
            if (start.value, end.value) in legal:
                moved = states.move(subject, end, START + HOUR)
                assert (moved.state, moved.changed_at) == (end, START + HOUR)
            else:
                with pytest.raises(IllegalMove):
                    states.move(subject, end, START)


def test_activating_makes_the_former_one_old() -> None:
    active, prepared = authority("a", AuthorityState.ACTIVE), authority("b", AuthorityState.PREPARED)
    changed = states.activate(slots(active, prepared), prepared, START)
    assert [(a.id, a.state) for a in changed] == [("b", AuthorityState.ACTIVE), ("a", AuthorityState.OLD)]


def test_an_ended_or_tainted_authority_is_never_activated() -> None:
    active = authority("a", AuthorityState.ACTIVE)
    with pytest.raises(IllegalMove):
        states.activate(slots(active), authority("b", AuthorityState.TAINTED), START)
    with pytest.raises(IllegalMove):
        states.activate(slots(active), authority("b", AuthorityState.OLD), START + DAY)


def test_an_authority_is_found_by_kind_and_id() -> None:
    found = authority("a", AuthorityState.OLD)
    assert states.find([found], "a", AuthorityKind.X509) is found
    with pytest.raises(UnknownAuthority):
        states.find([found], "a", AuthorityKind.JWT)


def test_the_bundle_holds_every_living_authority_before_and_after_it_signs() -> None:
    """FED-10: what will sign is published before, what signed stays until it has ended."""
    prepared = replace(authority("b", AuthorityState.PREPARED), roots=(OTHER_CA,))
    bundle = states.bundle_of(TrustDomain("example.org"), [authority("a", AuthorityState.OLD), prepared], HOUR)
    assert [a.certificate for a in bundle.x509_authorities] == [CA, OTHER_CA]
    assert bundle.refresh_hint == HOUR


def test_taint_is_shown_and_a_shared_root_is_tainted_only_with_the_last_of_its_authorities() -> None:
    tainted, active = authority("a", AuthorityState.TAINTED), authority("b", AuthorityState.ACTIVE)
    domain = TrustDomain("example.org")
    assert [a.tainted for a in states.bundle_of(domain, [tainted], HOUR).x509_authorities] == [True]
    for order in ([tainted, active], [active, tainted]):
        assert [a.tainted for a in states.bundle_of(domain, order, HOUR).x509_authorities] == [False]
