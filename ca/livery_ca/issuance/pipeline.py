"""The issuer: request → PREPARE → JOURNAL → SIGN → VERIFY → RECORD, for one or many at a time.

Owns: the order of the steps for a group, what cancelling means, and what a start makes of the last run. Does not own:
any step (their modules), SQL, gRPC.

Invariants: what was not linted cannot be journalled, what was not journalled cannot be signed, what was not verified
cannot be recorded as issued: each step takes only the type that the one before makes. From JOURNAL on, a caller that
goes away changes nothing. Every intent of a former run without an outcome is settled as `unknown` before the first new
one is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import structlog

from livery.errors import LiveryError
from livery.runtime.metrics import Metrics
from livery_ca.certificates.profile import MIN_LIFETIME, new_serial
from livery_ca.issuance import journal as journalling
from livery_ca.issuance import record as recording
from livery_ca.issuance import sign as signing
from livery_ca.issuance import verify as verification
from livery_ca.issuance.errors import IssuerClosed
from livery_ca.issuance.groups import Groups
from livery_ca.issuance.prepare import Authority, Linted, Moment, Preparation, Signers, validity
from livery_ca.issuance.request import Issued, IssueRequest, Refused
from livery_ca.issuance.sign import Failure, Signed
from livery_ca.issuance.timekeeping import TimeGuard
from livery_ca.issuance.workers import Workers
from livery_ca.keys import KeyStore
from livery_ca.model import Outcome
from livery_ca.store.journal import Journal

__all__ = ["STEPS", "Checkpoint", "Issuer", "IssuerParts"]

Checkpoint = Callable[[str], None]
"""Told each step that was reached, by name. Does nothing in a running authority; a test ends the process in it."""

STEPS = (
    "after:prepare",
    "before:journal-commit",
    "after:journal",
    "after:sign",
    "after:verify",
    "before:record-commit",
    "after:record",
)
_log = structlog.get_logger("livery.ca.issuance")


@dataclass(frozen=True, slots=True)
class IssuerParts:
    """Whom an issuer works with; certificates and tokens share them."""

    journal: Journal
    keys: KeyStore
    signers: Signers
    guard: TimeGuard
    workers: Workers
    metrics: Metrics


class Issuer:
    """Issues leaf certificates. `start` it first; `close` it before the store."""

    def __init__(
        self,
        parts: IssuerParts,
        *,
        checkpoint: Checkpoint = lambda _: None,
        serials: Callable[[], int] = new_serial,
    ) -> None:
        self._parts = parts
        self._checkpoint = checkpoint
        self._preparation = Preparation(serials)
        self._authority: Authority | None = None
        self._groups = Groups(self._issue_group)
        self._closed = False
        metrics = parts.metrics
        self._count = metrics.counter("ca_certificates", "Certificates asked for.", ["profile", "outcome"])
        self._seconds = metrics.histogram("ca_issuance_stage_seconds", "Time a group spends in a stage.", ["stage"])
        self._unissued = metrics.gauge("ca_intents_unissued", "Intents that were not issued.", ["outcome"])

    async def start(self) -> None:
        """Account for the last run: settle its open intents as `unknown`."""
        for intent in await self._parts.journal.abandon_open(self._parts.guard.stamp()):
            told = {"serial": f"{intent.serial:x}", "spiffe_id": str(intent.spiffe_id), "asked_by": intent.asked_by}
            fix = "treat it as issued, until it ends by itself"
            _log.warning("issuance.unknown", **told, not_after=intent.not_after.isoformat(), fix=fix)
        await self.count_unissued()

    async def issue(self, requests: Sequence[IssueRequest]) -> list[Issued | Refused]:
        """Issue what was asked for; the answers are in the order of the requests.

        A refused item is a `Refused` in its place. Raises what concerns all alike: `ClockBehind`, `IssuerClosed`, the
        store's errors.
        """
        if self._closed:
            raise IssuerClosed("the issuer is stopping", fix="try again once the authority is back")
        return await self._groups.carry_out(requests)

    async def count_unissued(self) -> None:
        """Bring the number of open, failed, withheld and unknown intents up to date."""
        for outcome, count in (await self._parts.journal.unsettled_counts()).items():
            self._unissued.labels("open" if outcome is None else outcome.value).set(count)

    @property
    def problem(self) -> str:
        """Why nothing can be issued at this time, or an empty text: what a health check reports."""
        try:
            moment = self._moment()
            validity(MIN_LIFETIME, moment.now, moment.authority.window)
        except LiveryError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        """Take no more requests and finish what is past JOURNAL."""
        self._closed = True
        await self._groups.finish()

    def _moment(self) -> Moment:
        """The authority, the bundle and the time that one group is issued under."""
        signers = self._parts.signers
        signer = signers.x509_signer()
        if self._authority is None or self._authority.signer is not signer:
            self._authority = Authority.of(signer)
        return Moment(self._authority, signers.bundles(), self._parts.guard.now())

    async def _issue_group(self, requests: Sequence[IssueRequest]) -> list[Issued | Refused]:
        """All steps, for everybody who asked at the same time."""
        try:
            prepared = await self._prepare(requests, self._moment())
            linted = [each for each in prepared if isinstance(each, Linted)]
            answers = iter(await self._carry_out(linted) if linted else [])
        except Exception as error:
            _log.error("issuance.group_failed", error=str(error))  # said here, for a cancelled caller will not
            self._tally(requests, ["failed"] * len(requests))
            raise
        merged = [each if isinstance(each, Refused) else next(answers) for each in prepared]
        self._tally(requests, ["issued" if isinstance(answer, Issued) else "refused" for answer in merged])
        return merged

    def _tally(self, requests: Sequence[IssueRequest], outcomes: Sequence[str]) -> None:
        for request, outcome in zip(requests, outcomes, strict=True):
            self._count.labels(request.profile.value, outcome).inc()

    async def _prepare(self, requests: Sequence[IssueRequest], moment: Moment) -> list[Linted | Refused]:
        with self._stage("prepare"):
            prepared = await self._parts.workers.compute(lambda r: self._preparation.prepare(r, moment), requests)
        self._checkpoint("after:prepare")
        return prepared

    async def _carry_out(self, linted: Sequence[Linted]) -> list[Issued | Refused]:
        journal, guard, workers = self._parts.journal, self._parts.guard, self._parts.workers
        with self._stage("journal"):
            before_commit = self._reaching("before:journal-commit")
            journalled = await journalling.write_down(journal, linted, guard.stamp(), before_commit)
        self._checkpoint("after:journal")
        with self._stage("sign"):
            signed = await workers.sign(lambda some: signing.sign(some, self._parts.keys), journalled)
        self._checkpoint("after:sign")
        with self._stage("verify"):
            results = await workers.compute(_verify, signed)
        self._checkpoint("after:verify")
        with self._stage("record"):
            before_commit = self._reaching("before:record-commit")
            answers = await recording.record(journal, results, guard.stamp(), before_commit)
        self._checkpoint("after:record")
        if any(isinstance(answer, Refused) for answer in answers):
            with suppress(LiveryError):  # what is on record stands, counted or not; the upkeep counts again
                await self._tell(results)
        return answers

    async def _tell(self, results: Sequence[verification.Verified | Failure]) -> None:
        for result in results:
            if isinstance(result, Failure):
                level = _log.error if result.outcome is Outcome.WITHHELD else _log.warning
                intent = result.journalled.intent
                level(
                    "issuance.not_issued", serial=f"{intent.serial:x}", outcome=result.outcome, error=str(result.error)
                )
        await self.count_unissued()

    def _reaching(self, step: str) -> Callable[[], None]:
        return lambda: self._checkpoint(step)

    def _stage(self, name: str) -> AbstractContextManager[object]:
        return self._seconds.labels(name).time()


def _verify(signed: Signed | Failure) -> verification.Verified | Failure:
    return signed if isinstance(signed, Failure) else verification.verify(signed)
