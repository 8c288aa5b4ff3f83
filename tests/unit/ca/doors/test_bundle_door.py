"""The bundles of others, as an administrator lists them."""

from __future__ import annotations

from typing import Any

import pytest

from livery.identity import TrustBundle, TrustDomain
from livery.wire import bundle_api, types_api
from livery_ca.doors.bundle import BundleDoor
from tests.unit.ca.doors.values import OURS
from tests.unit.ca.house import House

NO_CONTEXT: Any = None  # the reading methods need none


@pytest.fixture
async def door(ca: House) -> BundleDoor:
    for name in ("one.test", "two.test"):
        await ca.store.bundles.put(TrustBundle(TrustDomain(name), sequence=7))
    return BundleDoor(OURS, ca.authorities, ca.store.bundles)


async def listed(door: BundleDoor, **fields: Any) -> bundle_api.ListFederatedBundlesResponse:
    return await door.ListFederatedBundles(bundle_api.ListFederatedBundlesRequest(**fields), NO_CONTEXT)


async def test_the_list_has_the_bundles_of_others_and_the_count_our_own_too(door: BundleDoor) -> None:
    everything = await listed(door)
    assert [bundle.trust_domain for bundle in everything.bundles] == ["one.test", "two.test"]
    assert everything.next_page_token == ""
    assert (await door.CountBundles(bundle_api.CountBundlesRequest(), NO_CONTEXT)).count == 3


async def test_the_list_comes_in_pages_and_ends_with_an_empty_one(door: BundleDoor) -> None:
    pages, token = [], ""
    for _ in range(3):
        page = await listed(door, page_size=1, page_token=token)
        pages.append([bundle.trust_domain for bundle in page.bundles])
        token = page.next_page_token
    assert pages == [["one.test"], ["two.test"], []]
    assert token == ""


async def test_the_list_leaves_out_what_the_mask_leaves_out(door: BundleDoor) -> None:
    first, _ = (await listed(door, output_mask=types_api.BundleMask())).bundles
    assert (first.trust_domain, first.sequence_number) == ("one.test", 0)
    first, _ = (await listed(door)).bundles
    assert first.sequence_number == 7
