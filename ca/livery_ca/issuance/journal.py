"""JOURNAL: what is about to be signed is written down first, durably, and numbered in the issuance log.

Owns: `Journalled`, the only thing that can be signed, and that it is signed at most once. Does not own: the rows
(`store.journal`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from livery_ca.issuance.errors import AlreadyRedeemed
from livery_ca.issuance.prepare import Linted
from livery_ca.ledger import merkle
from livery_ca.model import Intent
from livery_ca.store.journal import Journal

_SEAL: Final = object()


class Journalled:
    """A linted certificate whose intent is on the disk. Made here and nowhere else; good for one signature."""

    __slots__ = ("_redeemed", "intent", "linted")

    def __init__(self, linted: Linted, intent: Intent, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only JOURNAL makes a Journalled")
        self.linted = linted
        self.intent = intent
        self._redeemed = False

    def redeem(self) -> bytes:
        """The bytes to sign, once. Raises `AlreadyRedeemed`."""
        if self._redeemed:
            raise AlreadyRedeemed(
                "an intent is signed once", why=f"serial {self.intent.serial:x} was handed out before"
            )
        self._redeemed = True
        return self.linted.tbs


async def write_down(
    journal: Journal, linted: Sequence[Linted], at: datetime, before_commit: Callable[[], None]
) -> list[Journalled]:
    """Journal these certificates as of `at`; when it returns they are on the disk, in order, in the log."""
    numbered = await journal.append([_intent(each, at) for each in linted], before_commit)
    return [Journalled(each, intent, _SEAL) for each, intent in zip(linted, numbered, strict=True)]


def key_hash(linted: Linted) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo: the key, as the journal knows it."""
    spki = linted.plan.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def _intent(linted: Linted, at: datetime) -> Intent:
    request, plan = linted.request, linted.plan
    return Intent(
        serial=plan.serial,
        profile=plan.profile.value,
        spiffe_id=plan.spiffe_id,
        authority_id=linted.moment.authority.signer.authority_id,
        key_hash=key_hash(linted),
        not_before=plan.not_before,
        not_after=plan.not_after,
        tbs=linted.tbs,
        leaf_hash=merkle.leaf_hash(linted.tbs),
        asked_by=request.asked_by,
        journalled_at=at,
        entry_id=request.entry_id,
        authorized_by=request.authorized_by,
    )
