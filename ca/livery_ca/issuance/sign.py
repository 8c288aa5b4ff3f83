"""SIGN: the authority's key signs what was journalled, and nothing else can reach it.

Owns: `Signed`, and what becomes of a portion whose signing fails. Does not own: the key (`keys`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livery.errors import LiveryError
from livery_ca.certificates import assemble
from livery_ca.issuance.errors import NotSound
from livery_ca.issuance.journal import Journalled
from livery_ca.keys import KeyStore
from livery_ca.model import Outcome


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate with its signature, not yet looked at."""

    journalled: Journalled
    signature: bytes
    der: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """An intent that will not be handed out, how far it came, and why."""

    journalled: Journalled
    outcome: Outcome
    error: LiveryError
    signature: bytes | None = None


def sign(journalled: Sequence[Journalled], keys: KeyStore) -> list[Signed | Failure]:
    """Sign a portion in one call of the key store. Where that fails, no signature of the portion came back."""
    key_id = journalled[0].linted.moment.authority.signer.key_id
    try:
        signatures = keys.sign(key_id, [each.redeem() for each in journalled])
    except LiveryError as error:
        return [Failure(each, Outcome.FAILED, error) for each in journalled]
    if len(signatures) != len(journalled):
        why = f"it returned {len(signatures)} signatures for {len(journalled)}"
        broken = NotSound("the key store is not sound", why=why, fix="look at the key store")
        return [Failure(each, Outcome.WITHHELD, broken) for each in journalled]
    return [_join(each, signature) for each, signature in zip(journalled, signatures, strict=True)]


def _join(journalled: Journalled, signature: bytes) -> Signed:
    linted = journalled.linted
    return Signed(journalled, signature, assemble.join(linted.tbs, linted.moment.authority.party, signature))
