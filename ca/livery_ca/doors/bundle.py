"""The Bundle service: the trust bundle of our domain, and of those we federate with.

Owns: the reading methods of `spire.api.server.bundle.v1.Bundle`. Does not own: which authorities the bundle holds
(`authorities`). The methods that change bundles are not offered yet and say so.

Invariant: no mask means every field; the trust domain is always shown.
"""
# ruff: noqa: N802, ARG002 - methods and parameters are the wire's

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from grpc.aio import ServicerContext

from livery.identity import TrustBundle, TrustDomain
from livery.runtime.spire_types import bundle_to_wire
from livery.wire import bundle_api, types_api
from livery_ca.doors.messages.paging import next_token, read_page
from livery_ca.doors.messages.presence import given
from livery_ca.doors.refusals import InvalidArgument, Missing, failing, malformed
from livery_ca.doors.unoffered import unoffered
from livery_ca.model import Listing, Page

Context = ServicerContext[Any, Any]
Mask = types_api.BundleMask

_OWN = "getting a federated bundle for the server's own trust domain is not allowed"


class OwnBundle(Protocol):
    """Who knows our bundle."""

    def current_bundle(self) -> TrustBundle:
        """Our trust domain's bundle, with its sequence number."""
        ...


class ForeignBundles(Protocol):
    """Where the bundles of other trust domains are kept."""

    async def get(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """The bundle of this trust domain."""
        ...

    async def list(self, page: Page) -> Listing[TrustBundle]:
        """One page of the bundles of others."""
        ...

    async def count(self) -> int:
        """How many bundles there are, our own included."""
        ...


@unoffered("PublishWITAuthority", text="WIT-SVID functionality is not yet implemented")
@unoffered(
    "AppendBundle PublishJWTAuthority BatchCreateFederatedBundle BatchUpdateFederatedBundle"
    " BatchSetFederatedBundle BatchDeleteFederatedBundle"
)
@dataclass(frozen=True, slots=True)
class BundleDoor(bundle_api.BundleServicer):
    """Answers for the bundles."""

    ours: TrustDomain
    own: OwnBundle
    foreign: ForeignBundles

    async def CountBundles(
        self, request: bundle_api.CountBundlesRequest, context: Context
    ) -> bundle_api.CountBundlesResponse:
        """How many bundles there are, our own included."""
        with failing("failed to count bundles"):
            return bundle_api.CountBundlesResponse(count=await self.foreign.count())

    async def GetBundle(self, request: bundle_api.GetBundleRequest, context: Context) -> types_api.Bundle:
        """Our own bundle, to anybody."""
        with failing("failed to fetch bundle"):
            bundle = self.own.current_bundle()
        return masked(bundle_to_wire(bundle), given(request, "output_mask", Mask))

    async def GetFederatedBundle(
        self, request: bundle_api.GetFederatedBundleRequest, context: Context
    ) -> types_api.Bundle:
        """The bundle of another trust domain. An agent that finds none goes on without it."""
        with malformed("trust domain argument is not valid"):
            trust_domain = TrustDomain.parse(request.trust_domain)
        if trust_domain == self.ours:
            raise InvalidArgument(_OWN)
        with failing("failed to fetch bundle"):
            bundle = await self.foreign.get(trust_domain)
        if bundle is None:
            raise Missing("bundle not found")
        return masked(bundle_to_wire(bundle), given(request, "output_mask", Mask))

    async def ListFederatedBundles(
        self, request: bundle_api.ListFederatedBundlesRequest, context: Context
    ) -> bundle_api.ListFederatedBundlesResponse:
        """The bundles of other trust domains, page by page."""
        page, mask = read_page(request.page_size, request.page_token), given(request, "output_mask", Mask)
        with failing("failed to list bundles"):
            listing = await self.foreign.list(page)
        return bundle_api.ListFederatedBundlesResponse(
            bundles=[masked(bundle_to_wire(bundle), mask) for bundle in listing.items],
            next_page_token=next_token(page, listing),
        )


def masked(bundle: types_api.Bundle, mask: types_api.BundleMask | None) -> types_api.Bundle:
    """The bundle without what the mask leaves out."""
    if mask is None:
        return bundle
    if not mask.x509_authorities:
        bundle.ClearField("x509_authorities")
    if not mask.jwt_authorities:
        bundle.ClearField("jwt_authorities")
    if not mask.refresh_hint:
        bundle.ClearField("refresh_hint")
    if not mask.sequence_number:
        bundle.ClearField("sequence_number")
    if not mask.wit_authorities:
        bundle.ClearField("wit_authorities")
    return bundle
