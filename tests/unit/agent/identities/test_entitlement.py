"""What a workload is told: hazard 25, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from livery.identity import BundleMap, Selector, SpiffeId, TrustDomain
from livery_agent.identities.entitlement import (
    Bundles,
    Denied,
    Identities,
    NotNow,
    Pending,
    bundles_for,
    identities_for,
)
from livery_agent.identities.entry import Entry
from livery_agent.identities.snapshot import Identity, Snapshot
from livery_agent.schedule import Renewal
from tests.pki import NOW, TestCa

TD, PARTNER = TrustDomain("example.org"), TrustDomain("partner.test")
CA, PARTNER_CA = TestCa(TD), TestCa(PARTNER)
UID, OTHER = Selector.parse("unix:uid:1000"), Selector.parse("unix:uid:1001")
US = frozenset({UID})
HOUR = timedelta(hours=1)


def pending(name: str, age: int = 0, **fields: object) -> Identity:
    spiffe_id = SpiffeId.of(TD, f"/{name}")
    return Identity(Entry(name, spiffe_id, US, created_at=100 - age, **fields))  # type: ignore[arg-type]


def valid(name: str, age: int = 0, ttl: timedelta = HOUR, **fields: object) -> Identity:
    identity = pending(name, age, **fields)
    svid = CA.issue(f"/{name}", ttl)
    return replace(identity, svid=svid, renewal=Renewal(NOW, svid.not_after), made_for=identity.entry.edition)


def snapshot(*identities: Identity, synced: bool = True) -> Snapshot:
    return Snapshot(TD, BundleMap.of(CA.bundle(), PARTNER_CA.bundle()), identities, synced)


def names(answer: object) -> list[str]:
    assert isinstance(answer, Identities), answer
    return [served.svid.id.path[1:] for served in answer.identities]


def test_hazard_25_no_matching_entry_is_a_denial():
    assert identities_for(snapshot(valid("a")), frozenset({OTHER}), NOW) == Denied()


def test_hazard_25_before_the_first_synchronisation_nobody_is_denied():
    assert isinstance(identities_for(snapshot(synced=False), US, NOW), NotNow)


def test_hazard_25_matched_but_unsigned_is_held():
    assert identities_for(snapshot(pending("a")), US, NOW) == Pending()


def test_hazard_25_expired_with_the_ca_away_is_not_now():
    answer = identities_for(snapshot(valid("a")), US, NOW + HOUR)
    assert isinstance(answer, NotNow)
    assert "expired" in answer.why


def test_every_signed_identity_is_answered_the_oldest_first():
    assert names(identities_for(snapshot(valid("new"), valid("old", age=50)), US, NOW)) == ["old", "new"]


def test_while_the_default_identity_awaits_its_svid_no_other_takes_its_place():
    assert identities_for(snapshot(pending("old", age=50), valid("new")), US, NOW) == Pending()


def test_a_later_identity_that_awaits_its_svid_does_not_hold_up_the_default():
    assert names(identities_for(snapshot(valid("old", age=50), pending("new")), US, NOW)) == ["old"]


def test_once_the_default_identity_has_expired_no_other_takes_its_place():
    both = snapshot(valid("old", age=50), valid("new", ttl=9 * HOUR))
    assert isinstance(identities_for(both, US, NOW + HOUR), NotNow)


def test_an_expired_svid_is_never_part_of_an_answer():
    both = snapshot(valid("old", age=50, ttl=9 * HOUR), valid("new"))
    assert names(identities_for(both, US, NOW + HOUR)) == ["old"]


def test_while_signing_the_default_identity_fails_no_other_takes_its_place():
    """A service must not call itself something else because the CA had an internal error."""
    failing = replace(pending("old", age=50), refusal="the CA did not sign: internal error", passing=True)
    answer = identities_for(snapshot(failing, valid("new")), US, NOW)
    assert answer == NotNow("the CA did not sign: internal error")


def test_an_identity_the_ca_refuses_is_not_waited_for():
    refused = replace(pending("old", age=50), refusal="policy says no")
    assert names(identities_for(snapshot(refused, valid("new")), US, NOW)) == ["new"]


def test_when_the_ca_refuses_everything_the_answer_says_so():
    answer = identities_for(snapshot(replace(pending("a"), refusal="policy says no")), US, NOW)
    assert isinstance(answer, NotNow)
    assert "policy says no" in answer.why


def test_what_the_workload_does_not_see_makes_no_other_answer():
    """A stream is sent nothing when only our bookkeeping has changed."""
    before = valid("a")
    revised = replace(before, entry=replace(before.entry, revision=1, admin=True), refusal="not now")
    assert identities_for(snapshot(before), US, NOW) == identities_for(snapshot(revised), US, NOW)


def test_a_refused_renewal_does_not_take_the_svid_away():
    assert names(identities_for(snapshot(replace(valid("a"), refusal="not now")), US, NOW)) == ["a"]


def test_federated_bundles_are_those_the_matching_entries_name():
    plain = identities_for(snapshot(valid("a")), US, NOW)
    assert isinstance(plain, Identities)
    assert plain.bundles.federated == ()
    federated = identities_for(snapshot(valid("a", federates_with=(PARTNER,))), US, NOW)
    assert isinstance(federated, Identities)
    assert [b.trust_domain for b in federated.bundles.federated] == [PARTNER]


def test_a_federated_bundle_that_is_not_there_is_left_out():
    missing = TrustDomain("missing.test")
    answer = identities_for(snapshot(valid("a", federates_with=(missing, TD))), US, NOW)
    assert isinstance(answer, Identities)
    assert answer.bundles.federated == ()


def test_bundles_go_to_whoever_has_an_entry_signed_or_not():
    assert isinstance(bundles_for(snapshot(pending("a")), US, strangers=False), Bundles)


def test_bundles_are_withheld_from_a_stranger_unless_configured():
    assert bundles_for(snapshot(valid("a")), frozenset({OTHER}), strangers=False) == Denied()
    answer = bundles_for(snapshot(valid("a", federates_with=(PARTNER,))), frozenset({OTHER}), strangers=True)
    assert isinstance(answer, Bundles)
    assert answer.federated == (), "a stranger federates with nobody"


def test_after_a_restart_with_the_ca_away_only_verifiers_are_served():
    asleep = snapshot(synced=False)
    assert isinstance(bundles_for(asleep, US, strangers=False), NotNow)
    assert isinstance(bundles_for(asleep, US, strangers=True), Bundles)


def test_without_a_bundle_there_is_no_answer():
    bare = Snapshot(TD, BundleMap(), (), synced=True)
    assert isinstance(bundles_for(bare, US, strangers=True), NotNow)
    assert isinstance(identities_for(bare, US, NOW), NotNow)
