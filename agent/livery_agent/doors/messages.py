"""Our values as messages of the SPIFFE Workload API.

Owns: the forms the Workload API prescribes (concatenated DER, PKCS#8, JWKS, trust domain IDs as keys). Pure.
Does not own: who gets which (`identities.entitlement`) or sending it (`workload_api`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        federated_bundles=_x509_by_id(*answer.bundles.federated),
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
    return workload_api.X509BundlesResponse(bundles=_x509_by_id(answer.own, *answer.federated))


def jwt_bundles(answer: Bundles) -> workload_api.JWTBundlesResponse:
    """FetchJWTBundles' message: JWK sets of JWT keys and no others."""
    bundles = {_key(bundle): bundle.jwt_jwks() for bundle in (answer.own, *answer.federated)}
    return workload_api.JWTBundlesResponse(bundles=bundles)


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


def _x509_by_id(*bundles: TrustBundle) -> dict[str, bytes]:
    # A partner may have no X.509 authority, or none any more. An empty field makes clients (py-spiffe) throw the whole
    # message away, and with it the workload's own SVIDs; one that is left out says the same (Workload API 4.4, 4.5).
    return {_key(bundle): bundle.x509_der() for bundle in bundles if bundle.x509_authorities}


def _key(bundle: TrustBundle) -> str:
    return str(SpiffeId(bundle.trust_domain))
