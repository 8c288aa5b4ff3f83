"""Bundles: our own counts its changes, foreign ones must not shadow anybody, and entries hold them in place."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from livery.identity import JwtKey, TrustBundle, TrustDomain, X509Authority
from livery_ca.model import Page
from livery_ca.store import Store
from livery_ca.store.bundles import DeleteMode
from livery_ca.store.errors import BundleInUse, BundleNotFound, BundleTaken, ShadowingAuthority, StoreForeign
from tests.pki import TestCa
from tests.unit.ca.store.values import entry

OURS = TrustDomain("example.org")
OTHER = TrustDomain("other.org")


def full(domain: TrustDomain, **changes: object) -> TrustBundle:
    """A bundle in which every field has a value."""
    bundle = TestCa(domain).bundle()
    authority = bundle.x509_authorities[0]
    key = JwtKey("kid", authority.certificate.public_key(), datetime(2027, 1, 1, tzinfo=UTC), tainted=True)  # type: ignore[arg-type]
    made = replace(
        bundle,
        x509_authorities=(X509Authority(authority.certificate, tainted=True),),
        jwt_authorities=(key,),
        sequence=2**64 - 1,
        refresh_hint=timedelta(seconds=90),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_a_bundle_comes_back_with_its_taints_ends_and_sequence(store: Store) -> None:
    """What the standard's document cannot say is kept too, and 64-bit sequences are borne."""
    bundle = full(OTHER)
    await store.bundles.put(bundle)
    assert await store.bundles.get(OTHER) == bundle
    assert await store.bundles.get(OURS) is None


async def test_our_sequence_grows_with_each_change_of_content_and_only_then(store: Store) -> None:
    """Trust Domain and Bundle 4.1.1 (TDB-2)."""
    await store.authorities.claim(OURS)
    bundle = full(OURS)
    first = await store.authorities.apply([], [], bundle)
    same = await store.authorities.apply([], [], replace(bundle, sequence=99))
    hinted = await store.authorities.apply([], [], replace(bundle, refresh_hint=timedelta(seconds=5)))
    empty = await store.authorities.apply([], [], TrustBundle(OURS))
    assert [b.sequence for b in (first, same, hinted, empty)] == [1, 1, 2, 3]
    assert await store.bundles.get(OURS) == empty


async def test_a_store_belongs_to_one_trust_domain_for_good(store: Store) -> None:
    await store.authorities.claim(OURS)
    await store.authorities.claim(OURS)
    with pytest.raises(StoreForeign, match=r"example\.org"):
        await store.authorities.claim(OTHER)


async def test_a_foreign_bundle_cannot_replace_or_remove_ours(store: Store) -> None:
    await store.authorities.claim(OURS)
    ours = await store.authorities.apply([], [], full(OURS))
    with pytest.raises(BundleTaken):
        await store.bundles.put(full(OURS))
    with pytest.raises(BundleNotFound):
        await store.bundles.delete(OURS, DeleteMode.DELETE)
    assert await store.bundles.get(OURS) == ours
    assert (await store.bundles.list()).items == ()


async def test_an_authority_that_could_be_mistaken_for_another_domains_is_refused(store: Store) -> None:
    """Hazard: a path builder that finds two issuers of one name or key identifier takes the first and gives up."""
    await store.authorities.claim(OURS)
    ours = await store.authorities.apply([], [], full(OURS))
    shadow = TrustBundle(OTHER, x509_authorities=ours.x509_authorities)
    with pytest.raises(ShadowingAuthority):
        await store.bundles.put(shadow)
    assert await store.bundles.get(OTHER) is None


async def test_creating_wants_no_bundle_and_updating_wants_one(store: Store) -> None:
    with pytest.raises(BundleNotFound):
        await store.bundles.update(full(OTHER))
    await store.bundles.create(full(OTHER))
    with pytest.raises(BundleTaken):
        await store.bundles.create(full(OTHER))
    await store.bundles.update(full(OTHER, sequence=None))


async def test_a_bundle_in_use_is_deleted_only_as_asked(store: Store) -> None:
    """RESTRICT refuses, DISSOCIATE unlinks the entries, DELETE takes them along."""
    await store.bundles.put(full(OTHER))
    await store.entries.create(entry("a", federates_with=(OTHER,)))
    with pytest.raises(BundleInUse) as refusal:
        await store.bundles.delete(OTHER)
    assert refusal.value.entries == 1
    await store.bundles.delete(OTHER, DeleteMode.DISSOCIATE)
    found = await store.entries.get("a")
    assert found is not None
    assert found.federates_with == ()

    await store.bundles.put(full(OTHER))
    await store.entries.create(entry("b", federates_with=(OTHER,)))
    await store.bundles.delete(OTHER, DeleteMode.DELETE)
    assert await store.entries.get("b") is None
    assert await store.bundles.get(OTHER) is None


async def test_foreign_bundles_are_listed_by_page(store: Store) -> None:
    for name in ("a.org", "b.org", "c.org"):
        await store.bundles.put(TrustBundle(TrustDomain(name)))
    page = await store.bundles.list(Page(2))
    assert [b.trust_domain.name for b in page.items] == ["a.org", "b.org"]
    assert page.last_row is not None
    assert [b.trust_domain.name for b in (await store.bundles.list(Page(2, page.last_row))).items] == ["c.org"]
    assert await store.bundles.count() == 3
