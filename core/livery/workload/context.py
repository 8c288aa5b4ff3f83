"""From the Workload API's messages to values, all or nothing.

Owns: `X509Context`, the coherent state of one message, and the reading of X.509 and JWT bundle messages. Does not own:
the stream they come on (`watch`). Pure.

Invariants: a message is the full state, so nothing of an earlier one survives it (Workload API 4.3); a message with a
mandatory field missing or malformed is refused whole (4.5), never half used. Errors name the field, not its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from livery.identity import BundleMap, IdentityError, JwtSvid, SpiffeId, TrustBundle, TrustDomain, X509Svid
from livery.wire import workload_api
from livery.workload.errors import MalformedResponse


@dataclass(frozen=True, slots=True)
class X509Context:
    """Our identities, the default one first, and the bundles of all trust domains we know; from one message."""

    svids: tuple[X509Svid, ...]
    bundles: BundleMap

    def svid(self, hint: str | None = None) -> X509Svid | None:
        """The default identity, or the first with this hint."""
        if hint is None:
            return self.svids[0]
        return next((svid for svid in self.svids if svid.hint == hint), None)


def read_x509(message: workload_api.X509SVIDResponse) -> X509Context:
    """A FetchX509SVID message as values. Raises `MalformedResponse`."""
    if not message.svids:
        raise _malformed("it holds no SVID")
    with _Reading("an SVID"):
        svids = tuple(_read_svid(each) for each in message.svids)
    bundles: dict[TrustDomain, TrustBundle] = {}
    with _Reading("a federated bundle"):
        bundles.update(_by_domain(message.federated_bundles))
    with _Reading("a bundle"):
        # Last, so that no federated bundle stands in the place of our own.
        for each, svid in zip(message.svids, svids, strict=True):
            bundles[svid.id.trust_domain] = TrustBundle.from_x509_der(svid.id.trust_domain, each.bundle)
    return X509Context(svids, BundleMap(bundles))


def _read_svid(message: workload_api.X509SVID) -> X509Svid:
    for name in ("spiffe_id", "x509_svid", "x509_svid_key", "bundle"):
        if not getattr(message, name):
            raise _malformed(f"{name} is empty")
    svid = X509Svid.from_der(message.x509_svid, message.x509_svid_key, message.hint)
    if svid.id != SpiffeId.parse(message.spiffe_id):
        raise _malformed("spiffe_id is not the certificate's")
    return svid


def _by_domain(bundles: Mapping[str, bytes]) -> dict[TrustDomain, TrustBundle]:
    domains = {TrustDomain.parse(name): der for name, der in bundles.items()}
    return {domain: TrustBundle.from_x509_der(domain, der) for domain, der in domains.items()}


def read_jwt_bundles(message: workload_api.JWTBundlesResponse) -> BundleMap:
    """A FetchJWTBundles message as values; its bundles hold JWT keys only. Raises `MalformedResponse`."""
    if not message.bundles:
        raise _malformed("it holds no bundle")
    with _Reading("a JWT bundle"):
        domains = {TrustDomain.parse(name): jwks for name, jwks in message.bundles.items()}
        return BundleMap({domain: TrustBundle.from_jwt_jwks(domain, jwks) for domain, jwks in domains.items()})


def read_jwt_svids(message: workload_api.JWTSVIDResponse) -> tuple[JwtSvid, ...]:
    """A FetchJWTSVID message as values. Raises `MalformedResponse`."""
    if not message.svids:
        raise _malformed("it holds no SVID")
    with _Reading("a JWT-SVID"):
        svids = tuple(JwtSvid.parse_unverified(each.svid, each.hint) for each in message.svids)
        if any(svid.id != SpiffeId.parse(each.spiffe_id) for svid, each in zip(svids, message.svids, strict=True)):
            raise _malformed("spiffe_id is not the token's")
    return svids


class _Reading:
    """Turns errors of the identity package into `MalformedResponse`, saying what was being read."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, IdentityError):
            raise _malformed(f"{self._what}: {error}") from error


def _malformed(why: str) -> MalformedResponse:
    return MalformedResponse("the Workload API sent a message that cannot be used", why=why, fix="look at the agent")
