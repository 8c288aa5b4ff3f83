"""Our values as messages of the SPIFFE Workload API.

Owns: the forms the Workload API prescribes (concatenated DER, PKCS#8, JWKS, trust domain IDs as keys). Pure.
Does not own: who gets which (`identities.entitlement`) or sending it (`workload_api`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from livery.identity import JwtSvid, SpiffeId, TrustBundle, VerifiedJwtSvid
from livery.wire import workload_api
from livery_agent.identities.entitlement import Bundles, Identities, Served
from livery_agent.identities.entry import Entry

# Of a token of another trust domain only these are passed on: the others may mean something else there (SPIRE 1.15).
REGISTERED_CLAIMS = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})  # RFC 7519 4.1


def x509_svids(answer: Identities) -> workload_api.X509SVIDResponse:
    """FetchX509SVID's message: the whole state, never a part of it."""
    own = answer.bundles.own.x509_der()
    return workload_api.X509SVIDResponse(
        svids=[_x509_svid(served, own) for served in answer.identities],
        federated_bundles=_by_id(answer.bundles.federated, TrustBundle.x509_der),
    )


def _x509_svid(served: Served, bundle: bytes) -> workload_api.X509SVID:
    return workload_api.X509SVID(
        spiffe_id=str(served.svid.id),
        x509_svid=served.svid.chain_der(),
        x509_svid_key=served.svid.key_der(),
        bundle=bundle,
        hint=served.hint,
    )


def x509_bundles(answer: Bundles) -> workload_api.X509BundlesResponse:
    """FetchX509Bundles' message."""
    bundles = _by_id((answer.own, *answer.federated), TrustBundle.x509_der)
    return workload_api.X509BundlesResponse(bundles=bundles)


def jwt_bundles(answer: Bundles) -> workload_api.JWTBundlesResponse:
    """FetchJWTBundles' message: JWK sets of JWT keys and no others."""
    return workload_api.JWTBundlesResponse(bundles=_by_id((answer.own, *answer.federated), TrustBundle.jwt_jwks))


def jwt_svids(svids: Sequence[tuple[Entry, JwtSvid]]) -> workload_api.JWTSVIDResponse:
    """FetchJWTSVID's message, the default identity first."""
    return workload_api.JWTSVIDResponse(
        svids=[workload_api.JWTSVID(spiffe_id=str(svid.id), svid=svid.token, hint=entry.hint) for entry, svid in svids]
    )


def validated(svid: VerifiedJwtSvid, *, foreign: bool) -> workload_api.ValidateJWTSVIDResponse:
    """ValidateJWTSVID's message. Raises ValueError for claims that its form cannot hold."""
    claims: Mapping[str, Any] = MappingProxyType({**svid.claims, "aud": list(svid.audience)})
    shown = {name: value for name, value in claims.items() if not foreign or name in REGISTERED_CLAIMS}
    message = workload_api.ValidateJWTSVIDResponse(spiffe_id=str(svid.id))
    try:
        message.claims.update(shown)
    except (OverflowError, TypeError) as cause:
        raise ValueError("a claim does not fit into a protobuf Struct") from cause
    return message


def _by_id(bundles: Sequence[TrustBundle], form: Callable[[TrustBundle], bytes]) -> dict[str, bytes]:
    return {str(SpiffeId(bundle.trust_domain)): form(bundle) for bundle in bundles}
