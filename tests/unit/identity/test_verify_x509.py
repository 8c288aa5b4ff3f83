"""Path validation: the row X509-12 of docs/conformance.md, each rule of RFC 5280 6 it names, and our bounds."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from livery.identity import (
    BundleMap,
    ExpiredX509Svid,
    InvalidX509Svid,
    PrematureX509Svid,
    TrustBundle,
    TrustDomain,
    UntrustedX509Svid,
    VerifiedX509Svid,
    X509Authority,
    verify_x509,
)
from tests.pki import BACKDATE, HOUR, NOW, FederatedPair, TestCa, Twist, usage

CA = TestCa("example.org")
BUNDLES = BundleMap.of(CA.bundle())
SECOND = timedelta(seconds=1)


def anchors(*authorities: TestCa) -> BundleMap:
    """A bundle of example.org with exactly these certificates."""
    return BundleMap.of(TrustBundle(CA.trust_domain, tuple(X509Authority(a.certificate) for a in authorities)))


def verified(chain: tuple[x509.Certificate, ...], bundles: BundleMap = BUNDLES, at: datetime = NOW) -> VerifiedX509Svid:
    return verify_x509(chain, bundles, at)


def test_X509_12_a_chain_up_to_an_authority_of_its_own_trust_domain_is_verified() -> None:
    svid = CA.issue("/a")
    found = verified(svid.chain)
    assert found.id == svid.id
    assert found.chain == svid.chain
    assert found.serial == svid.serial
    assert (found.not_before, found.not_after) == (svid.not_before, svid.not_after)
    assert found.authority == CA.certificate


def test_X509_12_what_is_verified_of_a_chain_is_its_leafs() -> None:
    chain = CA.intermediate().intermediate().issue_chain("/a")
    found = verified(chain)
    assert found.chain == chain
    assert found.serial == chain[0].serial_number
    assert found.authority == CA.certificate


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "rsa-2048", "rsa-4096"])
def test_X509_12_authorities_of_every_usual_key_type_are_verified(kind: str) -> None:
    root = TestCa("example.org", kind)
    assert verified(root.intermediate(kind=kind).issue_chain("/a"), anchors(root))


def test_X509_12_the_authority_of_a_federated_domain_cannot_vouch_for_one_of_our_ids() -> None:
    pair = FederatedPair.default()
    bundles = BundleMap.of(pair.ours.bundle(), pair.theirs.bundle())
    assert verified(pair.theirs.issue_chain("/workload"), bundles).id.trust_domain == TrustDomain("partner.test")
    with pytest.raises(UntrustedX509Svid, match=r"example\.org"):
        verified(pair.forge("/workload"), bundles)


def test_X509_12_an_id_of_a_domain_without_a_bundle_is_refused_whoever_signed_it() -> None:
    forged = (CA.sign_leaf("spiffe://unknown.test/a"),)
    with pytest.raises(UntrustedX509Svid, match=r"no X\.509 authority of unknown\.test"):
        verified(forged)
    with pytest.raises(UntrustedX509Svid):
        verified(CA.issue_chain("/a"), BundleMap())


def test_X509_12_a_stranger_with_our_authoritys_names_is_refused() -> None:
    twin = TestCa("example.org", name=CA.name)
    with pytest.raises(UntrustedX509Svid):
        verified(twin.issue_chain("/a"))
    with pytest.raises(UntrustedX509Svid):
        verified((*twin.issue_chain("/a"), twin.certificate))


def test_X509_12_a_signature_changed_in_one_bit_is_refused() -> None:
    der = bytearray(CA.issue_chain("/a")[0].public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(UntrustedX509Svid):
        verified((x509.load_der_x509_certificate(bytes(der)),))


def test_X509_12_a_missing_intermediate_is_refused_and_their_order_does_not_matter() -> None:
    lower = CA.intermediate().intermediate()
    leaf, low, high = lower.issue_chain("/a")
    assert verified((leaf, low, high))
    assert verified((leaf, high, low))
    with pytest.raises(UntrustedX509Svid):
        verified((leaf, low))
    with pytest.raises(UntrustedX509Svid):
        verified((leaf, high))


def test_X509_12_a_leaf_cannot_issue() -> None:
    """The classic: a workload uses its own SVID as a CA for another's name."""
    workload = CA.issue("/a")
    rogue = TestCa("example.org", key=workload.private_key, name="unused")
    leaf = rogue.sign_leaf("spiffe://example.org/admin")
    with pytest.raises(UntrustedX509Svid):
        verified((leaf, workload.leaf))
    named = CA.issue("/a", subject="a workload")
    rogue = TestCa("example.org", key=named.private_key, name="a workload")
    with pytest.raises(UntrustedX509Svid, match="CA certificate"):
        verified((rogue.sign_leaf("spiffe://example.org/admin"), named.leaf))


def test_X509_12_an_intermediate_that_is_no_ca_or_may_not_sign_is_refused() -> None:
    for crippled in [CA.intermediate(ca=False), CA.intermediate(key_usage=usage(digital_signature=True))]:
        with pytest.raises(UntrustedX509Svid):
            verified(crippled.issue_chain("/a"))


def test_X509_12_a_path_length_is_enforced_at_every_depth() -> None:
    root = TestCa("example.org", path_length=1)
    one = root.intermediate()
    assert verified(one.issue_chain("/a"), anchors(root))
    with pytest.raises(UntrustedX509Svid, match="path length"):
        verified(one.intermediate().issue_chain("/a"), anchors(root))
    with pytest.raises(UntrustedX509Svid, match="path length"):
        verified(CA.intermediate(path_length=0).intermediate().issue_chain("/a"))


def test_X509_12_an_unknown_critical_extension_is_refused_wherever_it_stands() -> None:
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)
    root = TestCa("example.org", extra=[unknown])
    for chain, bundles in [
        (CA.issue_chain("/a", Twist(extra=[unknown])), BUNDLES),
        (CA.intermediate(extra=[unknown]).issue_chain("/a"), BUNDLES),
        (root.issue_chain("/a"), anchors(root)),
    ]:
        with pytest.raises(UntrustedX509Svid, match="critical"):
            verified(chain, bundles)
    harmless = (unknown[0], False)
    assert verified(CA.issue_chain("/a", Twist(extra=[harmless])))


def test_X509_12_a_leaf_is_valid_from_its_first_to_its_last_second_and_not_beyond() -> None:
    chain = CA.issue_chain("/a", Twist(not_before=NOW, not_after=NOW + HOUR))
    assert verified(chain, at=NOW)
    assert verified(chain, at=NOW + HOUR)
    with pytest.raises(PrematureX509Svid, match="valid from"):
        verified(chain, at=NOW - SECOND / 1000)
    with pytest.raises(ExpiredX509Svid, match="valid until"):
        verified(chain, at=NOW + HOUR + SECOND / 1000)


def test_X509_12_an_issuer_outside_its_validity_is_refused() -> None:
    late = CA.intermediate(ttl=timedelta(minutes=1))
    chain = late.issue_chain("/a")
    assert verified(chain, at=NOW + timedelta(minutes=1))
    for after in [SECOND / 1000, SECOND]:
        with pytest.raises(UntrustedX509Svid):
            verified(chain, at=NOW + timedelta(minutes=1) + after)
    brief = TestCa("example.org", ttl=timedelta(minutes=1))
    chain = brief.issue_chain("/a")
    assert verified(chain, anchors(brief), NOW + timedelta(minutes=1))
    with pytest.raises(ExpiredX509Svid):
        verified(chain, anchors(brief), NOW + timedelta(minutes=1) + SECOND / 1000)
    old = TestCa("example.org", now=NOW - 48 * HOUR, ttl=HOUR)
    with pytest.raises(UntrustedX509Svid):
        verified(old.issue_chain("/a", Twist(not_after=NOW + HOUR)), anchors(old))


def test_the_time_is_an_argument_in_any_zone_and_never_without_one() -> None:
    chain = CA.issue_chain("/a")
    there = timezone(timedelta(hours=9))
    assert verified(chain, at=NOW.astimezone(there))
    with pytest.raises(ExpiredX509Svid):
        verified(chain, at=datetime(2026, 11, 23, 13, 0, 1, tzinfo=UTC).astimezone(there))
    with pytest.raises(TypeError):
        verified(chain, at=NOW.replace(tzinfo=None))


def test_the_verified_window_is_the_narrowest_on_the_path() -> None:
    """Whoever keeps a connection open until `not_after` must not outlive an issuer that ends before the leaf."""
    brief = CA.intermediate(ttl=timedelta(minutes=1))
    found = verified(brief.issue_chain("/a"))
    assert found.not_after == NOW + timedelta(minutes=1)
    assert found.not_before == NOW - BACKDATE
    backdated = verified(brief.issue_chain("/a", Twist(not_before=NOW - HOUR, not_after=NOW + HOUR)))
    assert backdated.not_before == NOW - BACKDATE


def test_an_authority_need_not_be_self_signed() -> None:
    """Every authority of a bundle is an anchor, with what stands above it sent along or not."""
    lower = CA.intermediate()
    leaf, low = lower.issue_chain("/a")
    for chain in [(leaf,), (leaf, low), (leaf, low, CA.certificate)]:
        assert verified(chain, anchors(lower)).authority == lower.certificate
    assert verified((leaf, low), anchors(CA, lower)).id
    with pytest.raises(UntrustedX509Svid):
        verified((*lower.issue_chain("/a"), CA.certificate), anchors(TestCa("example.org")))


def test_a_chain_that_carries_its_root_is_verified_by_the_bundle_and_not_by_what_it_carries() -> None:
    chain = (*CA.intermediate().issue_chain("/a"), CA.certificate)
    assert verified(chain).authority == CA.certificate
    with pytest.raises(UntrustedX509Svid):
        verified(chain, anchors(TestCa("example.org")))


def test_unrelated_certificates_in_a_chain_neither_help_nor_hurt() -> None:
    other = TestCa("partner.test")
    assert verified((*CA.issue_chain("/a"), other.certificate, other.issue("/x").leaf))


def test_a_tainted_authority_still_verifies_and_a_removed_one_does_not() -> None:
    chain = CA.issue_chain("/a")
    tainted = CA.bundle(x509_authorities=(X509Authority(CA.certificate, tainted=True),))
    assert verified(chain, BundleMap.of(tainted))
    new = TestCa("example.org")
    both = replace(tainted, x509_authorities=(*tainted.x509_authorities, X509Authority(new.certificate)))
    assert verified(chain, BundleMap.of(both))
    assert verified(new.issue_chain("/a"), BundleMap.of(both))
    with pytest.raises(UntrustedX509Svid):
        verified(chain, anchors(new))


def test_what_was_verified_can_be_verified_again_exactly() -> None:
    """A connection is held against each new bundle by the chain it presented."""
    first = verified(CA.intermediate().issue_chain("/a"))
    assert verified(first.chain) == first


def test_a_cross_signed_authority_is_found_through_either_parent() -> None:
    old, new = TestCa("example.org"), TestCa("example.org")
    shared = old.intermediate(name="shared")
    crossed = TestCa("example.org", key=shared.key, name="shared", issuer=new)
    leaf = shared.issue_chain("/a")[0]
    chain = (leaf, shared.certificate, crossed.certificate)
    assert verified(chain, anchors(old)).authority == old.certificate
    assert verified(chain, anchors(new)).authority == new.certificate


@pytest.mark.parametrize("twist", [Twist(aki=False), Twist(extended_uses=None), Twist(subject="x")])
def test_rules_of_the_web_that_spiffe_does_not_share_refuse_nothing(twist: Twist) -> None:
    assert verified(CA.issue_chain("/a", twist))


def test_an_authority_without_key_usage_or_key_identifier_is_verified() -> None:
    plain = TestCa("example.org", key_usage=None, ski=False)
    assert verified(plain.issue_chain("/a"), anchors(plain))


def test_an_ed25519_authority_may_stand_in_a_bundle_but_verifies_nothing_here() -> None:
    edwards = TestCa("example.org", "ed25519")
    with pytest.raises(UntrustedX509Svid):
        verified(edwards.issue_chain("/a"), anchors(edwards))
    assert verified(CA.issue_chain("/a"), anchors(edwards, CA))


@pytest.mark.parametrize("kind", ["ed25519", "secp256k1", "rsa-1024", "rsa-16384", "rsa-slow"])
def test_an_intermediate_of_a_strength_we_do_not_verify_is_refused_before_its_signature_is_computed(kind: str) -> None:
    weak = CA.intermediate(kind=kind)
    with pytest.raises(InvalidX509Svid, match="an issuer"):
        verified((CA.issue("/a").leaf, *weak.above()))


def test_a_chain_within_bounds_cannot_make_path_building_explode() -> None:
    """Seven authorities that all signed each other are 823,543 paths; the answer still comes at once."""
    rogue = TestCa("example.org", name="X")
    same = [TestCa("example.org", key=rogue.key, name="X", issuer=rogue).certificate for _ in range(7)]
    began = time.perf_counter()
    with pytest.raises(UntrustedX509Svid):
        verified((rogue.sign_leaf("spiffe://example.org/a"), *same))
    assert time.perf_counter() - began < 5


def test_names_and_name_constraints_cannot_be_multiplied_without_end() -> None:
    """The library compares each with each, before signatures, and gives up after a million: a second of ours."""
    subtrees = [*(x509.DNSName(f"{n}.test") for n in range(99)), x509.DNSName("example.org")]
    constrained = CA.intermediate(spiffe_id=None, extra=[(x509.NameConstraints(subtrees, None), True)])
    names = [f"{n}.example.org" for n in range(100)]
    assert verified(constrained.issue_chain("/a", Twist(dns_names=names[:99])))
    with pytest.raises(InvalidX509Svid, match="101 names under 100 name constraints"):
        verified(constrained.issue_chain("/a", Twist(dns_names=names)))
    excluding = CA.intermediate(extra=[(x509.NameConstraints(None, subtrees[:99]), True)])
    with pytest.raises(InvalidX509Svid, match="102 names under 99 name constraints"):
        verified(excluding.issue_chain("/a", Twist(dns_names=names)))
    assert verified(CA.intermediate().issue_chain("/a", Twist(dns_names=names * 3)))


def test_an_empty_or_too_long_chain_is_refused() -> None:
    with pytest.raises(InvalidX509Svid, match="empty"):
        verified(())
    with pytest.raises(InvalidX509Svid, match="more than 8"):
        verified((CA.issue("/a").leaf, *[CA.certificate] * 8))


def test_an_authority_without_a_name_is_refused_with_our_error() -> None:
    """RFC 5280 4.1.2.4: an issuer has a distinguished name."""
    root = TestCa("example.org")
    nameless = TestCa("example.org", key=root.key, name=" ", ski=False)
    chain = nameless.issue_chain("/a")
    assert verified(chain, anchors(nameless))
    stripped = _without_issuer(nameless)
    with pytest.raises(UntrustedX509Svid):
        verified((stripped,), anchors(nameless))


def _without_issuer(ca: TestCa) -> x509.Certificate:
    key = ca.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - BACKDATE)
        .not_valid_after(NOW + HOUR)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://example.org/a")]), True)
        .add_extension(usage(digital_signature=True), True)
    )
    return builder.sign(key, hashes.SHA256())
