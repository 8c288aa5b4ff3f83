"""The one writer: on every tick it asks what is due, asks the CA for it, and puts a new snapshot in place.

Owns: the order of work (this node's own identity, then bundles and entries, then SVIDs), what follows from a failure,
and the only `publish`. Does not own: what is due (`schedule`), how it is done (`node`, `renewal`, `upstream`), or who
is told (`identities.snapshot`).

Invariants:
- Nothing here ends because the CA is away: what is held stays published, and work is tried again after a pause.
- The process ends on one thing alone, `NodeLost`: the CA will not have this node, and the node cannot mend that itself.
- A reader never sees an SVID whose bundle it does not see, since both are published together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NoReturn

from livery.errors import LiveryError
from livery.identity import BundleMap, TrustBundle, TrustDomain
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery_agent import schedule
from livery_agent.errors import (
    CaAnswerUnusable,
    CaRefused,
    NodeBanned,
    NodeExpired,
    NodeLost,
    NodeMustReattest,
    NodeProofUnavailable,
    NodeRefused,
)
from livery_agent.identities.entry import Entry
from livery_agent.identities.jwt_svids import JwtSvids, withdrawn_keys
from livery_agent.identities.snapshot import Identity, Snapshot, Snapshots, merged
from livery_agent.inspection.status import Status
from livery_agent.keeper.pace import Chore, Pace
from livery_agent.keeper.renewal import Signer
from livery_agent.node import Node
from livery_agent.node.seal import Seal
from livery_agent.upstream import Upstream
from livery_agent.upstream.acceptance import outlives_its_authority
from livery_agent.upstream.connection import CaConnection

log = get_logger(__name__)

MAX_FETCHES = 10  # federated bundles at one time
DIALS_BEFORE_REATTESTING = 3
OUR_IDENTITY = "our identity"  # how `livery.runtime.dialer.dial` begins to say that it was not the peer that failed


@dataclass(frozen=True, slots=True)
class KeeperParts:
    """What the keeper works with."""

    node: Node
    upstream: Upstream
    connection: CaConnection
    seal: Seal
    snapshots: Snapshots
    jwt_svids: JwtSvids
    signer: Signer
    status: Status
    clock: Clock
    random: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Terms:
    """How the keeper begins and goes on.

    `bundle` is what the first connection knows the CA by: the operator's authorities, or (dangerous) nothing.
    """

    bundle: TrustBundle | None
    interval: timedelta
    agent_version: str


@dataclass(slots=True)
class _Memory:
    """What the keeper knows beside the snapshot."""

    entries: dict[str, Entry] = field(default_factory=dict)
    refused: NodeRefused | None = None
    saved: TrustBundle | None = None  # as it is on disk
    hanging: bool = False  # our own SVID hangs on an authority that is tainted or gone
    doubtful: bool = False  # the CA seems to turn our certificate away in TLS, where no status says so


class Keeper:
    """Runs for as long as the agent does."""

    def __init__(self, parts: KeeperParts, terms: Terms) -> None:
        self._p = parts
        self._terms = terms
        self._memory = _Memory()
        self.first_step = asyncio.Event()
        self._own, self._sync, self._sign = Chore("node"), Chore("sync"), Chore("sign")
        self._pace = Pace(parts.status, parts.clock, parts.random, terms.interval)

    async def run(self) -> NoReturn:
        """Work until cancelled; raises `NodeLost` when the node's identity is beyond repair."""
        await self.resume()
        while True:
            await self.step()
            self.first_step.set()
            await self._p.clock.sleep(self._nap())

    async def resume(self) -> None:
        """Take up what the last run left on disk. Raises `StateUnreadable`."""
        resumed = await self._p.node.resume()
        bundle = self._p.seal.load_bundle() or (self._terms.bundle if resumed else None)
        if bundle is not None:
            self._publish(replace(self._snapshot, bundles=BundleMap.of(bundle)))
        elif resumed:
            self._memory.refused = NodeRefused("this node has an identity", why="and no bundle to know the CA by")

    async def step(self) -> None:
        """Everything that is due now, once."""
        await self._attempt(self._own, self._keep_node, self._p.node.renewal)
        if not self._p.node.is_alive(self._p.clock.now()) or self._memory.refused:
            return
        await self._attempt(self._sync, self._synchronize, None)
        if self._snapshot.synced and not self._memory.refused:
            await self._attempt(self._sign, self._sign_due, self._most_urgent())

    # This node's own identity

    async def _keep_node(self) -> None:
        now, node = self._p.clock.now(), self._p.node
        alive, unwanted = node.is_alive(now), self._memory.refused is not None or self._memory.doubtful
        due = node.renewal is None or node.renewal.is_due(now) or self._memory.hanging
        if alive and not due and not unwanted:
            return
        if alive and not unwanted and not node.may_reattest:
            bundle = self._snapshot.bundle
            assert bundle is not None  # a node that has an SVID got a bundle with it
            await node.renew(bundle)
        else:
            await self._attest()
        self._memory.refused, self._memory.hanging, self._memory.doubtful = None, False, False
        self._sync.not_before = 0.0

    async def _attest(self) -> None:
        try:
            bundle = await self._p.node.attest(self._trusted())
        except (CaRefused, NodeBanned, NodeProofUnavailable) as cause:
            if self._may_wait(cause):
                raise
            await self._lose(cause)
        self._p.status.acknowledged = None  # a CA that has just met this node knows neither its bundle nor its version
        self._publish(replace(self._snapshot, bundles=self._snapshot.bundles.with_bundle(bundle)))

    def _may_wait(self, cause: LiveryError) -> bool:
        """Whether there is time to try again, because the SVID we hold is good although our evidence is not."""
        if isinstance(cause, NodeProofUnavailable):
            return self._p.node.svid is not None  # a file that may come back
        # Of evidence that is refused, the CA's administrators may have a setting to mend: for every node of a fleet.
        refused = self._memory.refused is not None or isinstance(cause, NodeBanned)
        return not refused and self._p.node.is_alive(self._p.clock.now())

    def _trusted(self) -> TrustBundle | None:
        """By what the CA is known to a node that cannot show a certificate: the last bundle and the operator's."""
        last, given = self._snapshot.bundle, self._terms.bundle
        if last is None or given is None:
            return last or given
        both = tuple(dict.fromkeys((*last.x509_authorities, *given.x509_authorities)))
        return TrustBundle(last.trust_domain, both)

    async def _lose(self, cause: LiveryError) -> NoReturn:
        # An SVID that the CA has not refused has ended, by a clock that may be wrong: the next start looks again.
        if self._memory.refused is not None or isinstance(cause, NodeRefused):
            await self._forget()
        raise NodeLost(
            "this node has no identity, and the agent stops",
            why=str(cause),
            fix=cause.fix or "give it new evidence (a join token, a valid certificate) and start it again",
        ) from cause

    async def _forget(self) -> None:
        try:
            await self._p.node.forget()
        except LiveryError as error:
            log.warning("this node's identity could not be removed from disk", error=str(error))

    async def _take_refusal(self, refusal: NodeRefused, chore: Chore) -> None:
        """The CA no longer accepts our certificate: attest anew if that is possible, else stop (SPIRE 1.15)."""
        if isinstance(refusal, NodeBanned):
            await self._lose(refusal)
        if self._p.node.may_reattest or isinstance(refusal, NodeMustReattest):
            self._memory.refused = refusal
        elif isinstance(refusal, NodeExpired) and self._p.node.is_alive(self._p.clock.now()):
            # By our clock it is valid, and there is no way back from giving it up: one of the clocks is wrong.
            self._p.status.note_skew(chore.name, str(refusal))
        else:
            await self._lose(refusal)

    # Entries and bundles

    async def _synchronize(self) -> None:
        entries = await self._p.upstream.entries(self._memory.entries)
        bundle = await self._p.upstream.bundle(self._snapshot.trust_domain)
        if not bundle.x509_authorities:
            raise CaAnswerUnusable("the CA sent a bundle without authorities", why="this node would trust nobody")
        federated = await self._federated(entries)
        held = await self._take_bundle(bundle)
        self._memory.entries = {entry.id: entry for entry in entries}
        identities = merged(held, entries)
        self._p.signer.retain(identities)
        bundles = BundleMap.of(bundle, *federated)
        self._publish(replace(self._snapshot, identities=identities, bundles=bundles, synced=True))
        self._p.status.synced_at = self._p.clock.now()
        self._memory.doubtful = False
        await self._save(bundle)
        await self._acknowledge(bundle)

    async def _federated(self, entries: Sequence[Entry]) -> list[TrustBundle]:
        places = asyncio.Semaphore(MAX_FETCHES)

        async def fetch(trust_domain: TrustDomain) -> TrustBundle | None:
            try:
                async with places:
                    return await self._p.upstream.federated_bundle(trust_domain)
            except (CaAnswerUnusable, CaRefused) as error:
                # One partner's trouble is not the node's: keep what we had of it.
                log.warning("a federated bundle could not be used", trust_domain=str(trust_domain), error=str(error))
                return self._snapshot.bundles.get(trust_domain)

        # Our own is not among them, though an entry may name it: it came with this synchronisation.
        wanted = sorted({td for entry in entries for td in entry.federates_with} - {self._snapshot.trust_domain})
        return [b for b in await asyncio.gather(*(fetch(td) for td in wanted)) if b is not None]

    async def _take_bundle(self, bundle: TrustBundle) -> tuple[Identity, ...]:
        """Look at what a changed bundle means; returns the identities, those marked that hang on what it drops."""
        before, held = self._snapshot.bundle, self._snapshot.identities
        if bundle == before:
            return held
        self._p.jwt_svids.forget(withdrawn_keys(before, bundle))
        own, now = self._p.node.svid, self._p.clock.now()
        self._memory.hanging = own is not None and outlives_its_authority(own, bundle, now)
        return await asyncio.to_thread(lambda: tuple(_replaced_early(i, bundle, now) for i in held))

    async def _save(self, bundle: TrustBundle) -> None:
        """Keep a changed bundle on disk; after it is in use, since a full disk is no reason to trust the old one."""
        if bundle != self._memory.saved:
            await self._p.seal.save_bundle(bundle)
            self._memory.saved = bundle

    async def _acknowledge(self, bundle: TrustBundle) -> None:
        sequence = bundle.sequence or 0
        if self._p.status.acknowledged != sequence:
            await self._p.upstream.post_status(sequence, self._terms.agent_version)
            self._p.status.acknowledged = sequence

    # Workload SVIDs

    async def _sign_due(self) -> None:
        self._p.signer.begin()
        while batch := self._p.signer.ready(self._due()):
            signed = await self._p.signer.sign(batch, BundleMap.of(*filter(None, [self._snapshot.bundle])))
            self._p.status.succeeded(self._sign.name)
            self._p.status.note_skew("svids", self._p.signer.skew)
            renewed = [new for old, new in zip(batch, signed, strict=True) if new.svid is not old.svid]
            self._p.status.renewals += len(renewed)
            fresh = {identity.entry.id: identity for identity in signed}
            identities = tuple(fresh.get(i.entry.id, i) for i in self._snapshot.identities)
            self._publish(replace(self._snapshot, identities=identities))

    def _due(self) -> tuple[Identity, ...]:
        return schedule.due(self._snapshot.identities, self._p.clock.now())

    def _most_urgent(self) -> schedule.Renewal | None:
        return schedule.most_urgent(self._due(), self._p.clock.now())

    # The frame around it all

    async def _attempt(
        self, chore: Chore, work: Callable[[], Awaitable[None]], urgent: schedule.Renewal | None
    ) -> None:
        """Do it if its pause is over, and see what a failure says about this node."""
        if not self._pace.is_time(chore):
            return
        try:
            await work()
        except NodeRefused as refusal:
            self._pace.failed(chore, refusal, urgent)
            await self._take_refusal(refusal, chore)
        except NodeLost:
            raise
        except LiveryError as error:
            self._pace.failed(chore, error, urgent)
            self._suspect_own_certificate(chore)
        except Exception as error:  # task boundary: the agent outlives its own mistakes
            log.exception("unexpected error", work=chore.name)
            self._pace.failed(chore, error, urgent)
        else:
            self._pace.succeeded(chore, rests=chore is self._sync)

    def _suspect_own_certificate(self, chore: Chore) -> None:
        """A CA that answers at the TLS layer and turns our certificate away has no status to tell us so."""
        failure = self._p.status.failures.get(chore.name)
        refusal = self._p.connection.last_refusal
        if chore is self._own or failure is None or failure.times < DIALS_BEFORE_REATTESTING or not refusal:
            return
        if self._p.node.may_reattest and OUR_IDENTITY in refusal:
            self._memory.doubtful = True

    def _nap(self) -> float:
        held = [i.renewal for i in self._snapshot.identities if i.renewal]
        own = [self._p.node.renewal] if self._p.node.renewal else []
        return self._pace.nap((self._own, self._sync, self._sign), held + own)

    @property
    def _snapshot(self) -> Snapshot:
        return self._p.snapshots.current

    def _publish(self, snapshot: Snapshot) -> None:
        if replace(snapshot, version=self._snapshot.version) != self._snapshot:
            self._p.snapshots.publish(snapshot)


def _replaced_early(identity: Identity, bundle: TrustBundle, now: datetime) -> Identity:
    """The identity; marked as due if its SVID hangs on an authority that is tainted or gone."""
    if identity.svid is None or not outlives_its_authority(identity.svid, bundle, now):
        return identity
    return replace(identity, made_for=None)
