"""What a workload may be told, given the snapshot and what was attested about it.

Owns: the answers to "which X.509 identities?", "which bundles?" and "which entries for a JWT?", as values. Pure.
Does not own: status codes, messages or streams (`doors`).

Invariants (hazard 25):
- Not matched by any entry is a denial. Before the first synchronisation nobody is denied: we do not know yet.
- The default identity (the oldest entry's) decides: while it awaits its first SVID the answer waits, and while signing
  it fails, or once it has expired, there is no answer. No other identity slips into its place, unless the CA declines
  to sign for it.
- An expired SVID is never part of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from livery.identity import Selector, TrustBundle, X509Svid
from livery_agent.identities.snapshot import Identity, Snapshot

Attested = frozenset[Selector]


@dataclass(frozen=True, slots=True)
class Denied:
    """No entry describes the workload."""


@dataclass(frozen=True, slots=True)
class Pending:
    """An entry describes the workload; its SVID is on the way."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """There is an answer in principle, but not at this moment."""

    why: str


@dataclass(frozen=True, slots=True)
class Bundles:
    """The bundles a workload may have: our own trust domain's, and those its entries federate with."""

    own: TrustBundle
    federated: tuple[TrustBundle, ...] = ()


@dataclass(frozen=True, slots=True)
class Served:
    """One identity as the workload sees it: nothing else about it makes two answers differ."""

    svid: X509Svid
    hint: str


@dataclass(frozen=True, slots=True)
class Identities:
    """The identities a workload has now, its default one first, and the bundles that go with them."""

    identities: tuple[Served, ...]
    bundles: Bundles


NOT_SYNCED = NotNow("this agent has not heard from the CA yet")
EXPIRED = NotNow("the SVID has expired and the CA has not issued a new one")


def identities_for(snapshot: Snapshot, attested: Attested, now: datetime) -> Identities | Pending | NotNow | Denied:
    """The X.509 identities of a workload with these selectors."""
    own = snapshot.bundle
    if not snapshot.synced or own is None:
        return NOT_SYNCED
    matched = snapshot.matching(attested)
    if not matched:
        return Denied()
    default = next((identity for identity in matched if not identity.is_declined), matched[0])
    if default.is_pending:
        return Pending()
    if default.svid is None:
        return NotNow(default.refusal)
    if not default.is_usable(now):
        return EXPIRED
    served = tuple(Served(i.svid, i.entry.hint) for i in matched if i.svid is not None and i.is_usable(now))
    return Identities(served, Bundles(own, _federated(snapshot, matched)))


def bundles_for(snapshot: Snapshot, attested: Attested, *, strangers: bool) -> Bundles | NotNow | Denied:
    """The bundles of a workload; with `strangers`, our own trust domain's also for one without an identity."""
    own = snapshot.bundle
    if own is None or not (snapshot.synced or strangers):
        return NOT_SYNCED
    matched = snapshot.matching(attested)
    if not matched and not strangers:
        return Denied()
    return Bundles(own, _federated(snapshot, matched))


def _federated(snapshot: Snapshot, matched: tuple[Identity, ...]) -> tuple[TrustBundle, ...]:
    wanted = {td for identity in matched for td in identity.entry.federates_with} - {snapshot.trust_domain}
    held = (snapshot.bundles.get(trust_domain) for trust_domain in sorted(wanted))
    return tuple(bundle for bundle in held if bundle is not None)
