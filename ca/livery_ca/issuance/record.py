"""RECORD: the outcome of every intent, durable before anybody hears of it.

Owns: what is written, and the answer that follows from it. Does not own: the rows (`store.journal`).

Invariant: an `Issued` leaves this module only after its outcome, and the writes that belong to it, are on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from livery_ca.issuance.errors import IssuanceError
from livery_ca.issuance.request import Issued, Refused
from livery_ca.issuance.sign import Failure
from livery_ca.issuance.verify import Verified
from livery_ca.model import Outcome
from livery_ca.store.journal import Journal, Settlement
from livery_ca.store.writes import Write

_log = structlog.get_logger("livery.ca.issuance")


async def record(
    journal: Journal, results: Sequence[Verified | Failure], at: datetime, before_commit: Callable[[], None]
) -> list[Issued | Refused]:
    """Settle every intent of a group; returns the answers, in order."""
    pairs = [_settlement(result, at) for result in results]
    refusals = await journal.settle([settlement for settlement, _ in pairs], before_commit)
    return [Refused(refusal) if refusal else answer for (_, answer), refusal in zip(pairs, refusals, strict=True)]


def _settlement(result: Verified | Failure, at: datetime) -> tuple[Settlement, Issued | Refused]:
    if isinstance(result, Failure):
        return _failed(result, at)
    issued = _issued(result)
    try:
        writes = _writes(result, issued)
    except Exception as cause:  # noqa: BLE001 - a caller's code: its fault is its item's, and must not leave others open
        _log.exception("issuance.on_record_failed", serial=f"{issued.serial:x}")
        error = IssuanceError("the record of a certificate could not be made", why=type(cause).__name__)
        return _failed(Failure(result.signed.journalled, Outcome.WITHHELD, error, result.signed.signature), at)
    settled = Settlement(issued.log_index, Outcome.ISSUED, at, signature=result.signed.signature, writes=writes)
    return settled, issued


def _writes(result: Verified, issued: Issued) -> tuple[Write, ...]:
    on_record = result.signed.journalled.linted.request.on_record
    return () if on_record is None else tuple(on_record(issued))


def _failed(failure: Failure, at: datetime) -> tuple[Settlement, Refused]:
    index, error = failure.journalled.intent.index, failure.error
    return Settlement(index, failure.outcome, at, str(error), failure.signature), Refused(error)


def _issued(verified: Verified) -> Issued:
    signed = verified.signed
    intent, authority = signed.journalled.intent, signed.journalled.linted.moment.authority
    return Issued(
        serial=intent.serial,
        spiffe_id=intent.spiffe_id,
        chain_ders=(signed.der, *authority.signer.chain_ders),
        not_before=intent.not_before,
        not_after=intent.not_after,
        log_index=intent.index,
    )
