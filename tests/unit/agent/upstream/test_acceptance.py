"""The gate before the snapshot (hazard 24): which certificates of the CA may be used."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from livery.identity import BundleMap, SpiffeId, TrustDomain, X509Authority, X509Svid
from livery_agent.errors import CaAnswerUnusable, NotInForce
from livery_agent.upstream.acceptance import Moment, accept, outlives_its_authority, require_agent_id
from livery_agent.upstream.joining import Issued
from tests.pki import NOW, TestCa

CA = TestCa()
HOUR = timedelta(hours=1)
MOMENT = Moment(BundleMap.of(CA.bundle()), NOW, 0.0)


def issued(svid: X509Svid) -> Issued:
    return Issued(svid.id, svid.chain)


def test_a_sound_svid_is_accepted_with_its_times_from_receipt():
    svid = CA.issue("/orders")
    accepted = accept(issued(svid), svid.private_key, svid.id, replace(MOMENT, jitter=0.1))
    assert accepted.svid == svid
    assert (accepted.renewal.received_at, accepted.renewal.expires_at) == (NOW, svid.not_after)
    assert accepted.renewal.jitter == 0.1


def test_an_svid_ends_with_its_issuer_if_that_ends_first():
    intermediate = CA.intermediate(ttl=HOUR / 2)
    svid = intermediate.issue("/orders", HOUR)
    accepted = accept(issued(svid), svid.private_key, svid.id, MOMENT)
    assert accepted.renewal.expires_at == NOW + HOUR / 2


@pytest.mark.parametrize("offset", [2 * HOUR, -HOUR])
def test_hazard_24_an_svid_not_valid_at_our_own_time_is_a_matter_of_clocks(offset: timedelta):
    svid = CA.issue("/orders")
    with pytest.raises(NotInForce) as refused:
        accept(issued(svid), svid.private_key, svid.id, replace(MOMENT, now=NOW + offset))
    assert "clocks" in refused.value.fix
    assert f"{NOW + offset:%H:%M:%SZ} here" in refused.value.why


def test_an_svid_for_another_id_is_refused():
    svid, other = CA.issue("/orders"), SpiffeId.parse("spiffe://example.org/other")
    with pytest.raises(CaAnswerUnusable, match="orders"):
        accept(issued(svid), svid.private_key, other, MOMENT)
    with pytest.raises(CaAnswerUnusable):
        accept(Issued(other, svid.chain), svid.private_key, svid.id, MOMENT)
    with pytest.raises(CaAnswerUnusable, match=r"it is for spiffe://example\.org/orders"):
        accept(Issued(other, svid.chain), svid.private_key, other, MOMENT)


def test_an_svid_for_another_key_is_refused():
    svid = CA.issue("/orders")
    with pytest.raises(CaAnswerUnusable, match="key"):
        accept(issued(svid), CA.issue("/orders").private_key, svid.id, MOMENT)


def test_an_svid_of_an_authority_that_is_not_in_the_bundle_is_refused():
    svid = TestCa().issue("/orders")
    with pytest.raises(CaAnswerUnusable):
        accept(issued(svid), svid.private_key, svid.id, MOMENT)


@pytest.mark.parametrize(
    "text",
    ["spiffe://other.test/spire/agent/x509pop/1", "spiffe://example.org/orders", "spiffe://example.org/spire/agents/1"],
)
def test_an_id_that_no_node_may_have_is_refused(text: str):
    with pytest.raises(CaAnswerUnusable):
        require_agent_id(SpiffeId.parse(text), TrustDomain("example.org"))


def test_an_svid_hangs_on_a_tainted_or_missing_authority_or_it_does_not():
    svid, bundle = CA.issue("/orders"), CA.bundle()
    tainted = replace(bundle, x509_authorities=(X509Authority(CA.certificate, tainted=True),))
    with_another = replace(tainted, x509_authorities=(*tainted.x509_authorities, X509Authority(TestCa().certificate)))
    gone = TestCa().bundle()
    assert not outlives_its_authority(svid, bundle, NOW)
    assert not outlives_its_authority(svid, bundle, NOW + 9 * HOUR), "its own end is another question"
    for withdrawn in (tainted, with_another, gone):
        assert outlives_its_authority(svid, withdrawn, NOW)
