"""Whether a certificate the CA sent may be used: the one gate between the wire and the snapshot.

Owns: `accept`. Pure. Does not own: what happens to the SVID it would have replaced; that one stays where it is.

Invariant (hazard 24): a new SVID is accepted only if it verifies, for the ID asked for, at this node's own time. If
that fails for the time alone, one of the two clocks is wrong, and the error says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from livery.identity import (
    BundleMap,
    ExpiredX509Svid,
    IdentityError,
    PrematureX509Svid,
    PrivateKey,
    SpiffeId,
    TrustBundle,
    TrustDomain,
    VerifiedX509Svid,
    X509Svid,
    verify_x509,
)
from livery_agent.errors import CaAnswerUnusable, NotInForce
from livery_agent.schedule import Renewal
from livery_agent.upstream.joining import Issued

AGENT_PREFIX = "/spire/agent/"


@dataclass(frozen=True, slots=True)
class Accepted:
    """An SVID that may be used, and its times from now on."""

    svid: X509Svid
    renewal: Renewal


@dataclass(frozen=True, slots=True)
class Moment:
    """What an SVID is held against: the bundles, the time, and the jitter drawn for it."""

    bundles: BundleMap
    now: datetime
    jitter: float


def accept(issued: Issued, key: PrivateKey, expected: SpiffeId, at: Moment) -> Accepted:
    """The SVID for `expected`; raises `NotInForce` for a wrong clock, `CaAnswerUnusable` for everything else."""
    try:
        verified = verify_x509(issued.chain, at.bundles, at.now)
        svid = X509Svid.of(issued.chain, key)
    except (ExpiredX509Svid, PrematureX509Svid) as cause:
        raise NotInForce(
            f"the certificate for {expected} is not valid at this node's time",
            why=f"{cause.why}; it is {at.now:%Y-%m-%dT%H:%M:%SZ} here",
            fix="compare the clocks of this node and of the CA",
        ) from cause
    except IdentityError as cause:
        raise CaAnswerUnusable(f"the certificate for {expected} cannot be used", why=str(cause)) from cause
    if verified.id != expected or issued.id != expected:
        raise CaAnswerUnusable(f"the certificate for {expected} cannot be used", why=f"it is for {verified.id}")
    return Accepted(svid, _renewal(verified, at))


def _renewal(verified: VerifiedX509Svid, at: Moment) -> Renewal:
    # The narrowest end on the path: an SVID is worth nothing once its issuer has ended.
    return Renewal(at.now, verified.not_after, at.jitter)


def require_agent_id(spiffe_id: SpiffeId, trust_domain: TrustDomain) -> None:
    """Raise `CaAnswerUnusable` unless this is an ID a node of the trust domain may have."""
    if not spiffe_id.member_of(trust_domain) or not spiffe_id.path.startswith(AGENT_PREFIX):
        raise CaAnswerUnusable("the CA gave this node an ID that no node has", why=str(spiffe_id))


def outlives_its_authority(svid: X509Svid, bundle: TrustBundle, now: datetime) -> bool:
    """Whether the SVID hangs on an authority that is tainted or gone, and so must be replaced early."""
    kept = tuple(authority for authority in bundle.x509_authorities if not authority.tainted)
    sound = TrustBundle(bundle.trust_domain, kept)
    # The question is about authorities alone, so it is asked of a time at which the chain was in force.
    then = min(max(now, svid.not_before), svid.not_after - timedelta(seconds=1))
    try:
        verify_x509(svid.chain, BundleMap.of(sound), then)
    except IdentityError:
        return True
    return False
