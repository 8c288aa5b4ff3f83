"""Signing what is due: batches to the CA, answers through the gate, identities with new SVIDs out.

Owns: the batch size (halved when a batch fails, doubled when one succeeds, in one round never to what just failed),
keys and requests, and how long an identity that was refused is left alone. Does not own: when to sign and where the
results go (`keeper`).

Invariant: an identity that gets no new SVID keeps the one it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric import ec

from livery.identity import BundleMap
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery_agent.errors import AgentError, CaOverloaded, CaRefused, CaUnavailable, NotInForce
from livery_agent.identities.snapshot import Identity
from livery_agent.node.keys import new_key, request
from livery_agent.schedule import draw_jitter, pause
from livery_agent.upstream import SigningRequest, Unsigned, Upstream
from livery_agent.upstream.acceptance import Moment, accept
from livery_agent.upstream.joining import Issued

log = get_logger(__name__)

MAX_BATCH = 500  # the CA's own bound (SPIRE 1.15)

Edition = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class _Rest:
    """An identity that was refused is left alone until the stopwatch shows this."""

    failures: int
    until: float


class Signer:
    """Turns identities that need an SVID into identities that have one."""

    def __init__(self, upstream: Upstream, clock: Clock, random: Callable[[], float], interval: timedelta) -> None:
        self._upstream = upstream
        self._clock = clock
        self._random = random
        self._interval = interval
        self._batch = self._ceiling = MAX_BATCH
        self._resting: dict[Edition, _Rest] = {}
        self.skew = ""

    def begin(self) -> None:
        """A new round: the CA may take more than it did in the last one."""
        self._ceiling = MAX_BATCH

    def ready(self, due: Sequence[Identity]) -> tuple[Identity, ...]:
        """The next batch of those that are due, leaving out what was refused a moment ago."""
        now = self._clock.monotonic()
        awake = [i for i in due if i.entry.edition not in self._resting or self._resting[i.entry.edition].until <= now]
        return tuple(awake[: self._batch])

    def retain(self, identities: Sequence[Identity]) -> None:
        """Forget what is no longer ours."""
        kept = {identity.entry.edition for identity in identities}
        self._resting = {edition: rest for edition, rest in self._resting.items() if edition in kept}

    async def sign(self, batch: Sequence[Identity], bundles: BundleMap) -> list[Identity]:
        """Each identity of the batch as it is afterwards; raises if the CA answered none of them."""
        keys, requests = await asyncio.to_thread(_requests, batch)
        try:
            answers = await self._upstream.sign(requests)
        except CaOverloaded:
            self._ceiling = self._batch = max(1, len(batch) // 2)
            if len(batch) == 1:
                raise
            return list(batch)  # unchanged, and so still due: in smaller batches
        except AgentError:
            self._batch = max(1, len(batch) // 2)
            raise
        self._batch = min(self._ceiling, self._batch * 2)
        moments = [Moment(bundles, self._clock.now(), draw_jitter(self._random)) for _ in batch]
        rows = list(zip(batch, keys, answers, moments, strict=True))
        judged = await asyncio.to_thread(lambda: [_judged(*row) for row in rows])
        self._note_skew(judged)
        return [self._settle(identity, verdict) for identity, verdict in zip(batch, judged, strict=True)]

    def _note_skew(self, judged: Sequence[Identity | AgentError]) -> None:
        self.skew = next((str(verdict) for verdict in judged if isinstance(verdict, NotInForce)), "")

    def _settle(self, identity: Identity, verdict: Identity | AgentError) -> Identity:
        edition = identity.entry.edition
        if isinstance(verdict, Identity):
            self._resting.pop(edition, None)
            return verdict
        failures = (self._resting[edition].failures if edition in self._resting else 0) + 1
        remaining = identity.renewal.expires_at - self._clock.now() if identity.renewal else None
        rest = pause(failures, self._interval, remaining)
        self._resting[edition] = _Rest(failures, self._clock.monotonic() + rest.total_seconds())
        log.warning("no new SVID", spiffe_id=str(identity.entry.spiffe_id), error=str(verdict), failures=failures)
        return replace(identity, refusal=str(verdict), passing=not isinstance(verdict, CaRefused))


def _requests(batch: Sequence[Identity]) -> tuple[list[ec.EllipticCurvePrivateKey], list[SigningRequest]]:
    keys = [new_key() for _ in batch]
    pairs = zip(batch, keys, strict=True)
    return keys, [SigningRequest(i.entry.id, request(key, i.entry.spiffe_id)) for i, key in pairs]


def _judged(
    identity: Identity, key: ec.EllipticCurvePrivateKey, answer: Issued | Unsigned, moment: Moment
) -> Identity | AgentError:
    if isinstance(answer, Unsigned):
        return (CaUnavailable if answer.passing else CaRefused)("the CA did not sign", why=answer.why)
    try:
        accepted = accept(answer, key, identity.entry.spiffe_id, moment)
    except AgentError as error:
        return error
    return Identity(identity.entry, accepted.svid, accepted.renewal, made_for=identity.entry.edition)
