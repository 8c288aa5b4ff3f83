"""An intent: what the authority decided to sign, written down before it signs; and what became of it.

Owns: `Intent`, `Outcome`, `Settled`, and the record of an issued JWT. Does not own: the order of the steps
(`issuance`), the rows (`store.journal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from livery.identity import SpiffeId


class Outcome(StrEnum):
    """What became of an intent. An open intent has none."""

    ISSUED = "issued"  # signed, verified, recorded; handed out
    FAILED = "failed"  # no signature came back from the key store
    WITHHELD = "withheld"  # signed, and never handed out: it did not verify, or its record was refused
    UNKNOWN = "unknown"  # the process ended in between: treated as issued, never signed again


@dataclass(frozen=True, slots=True)
class Intent:
    """One line of the issuance journal: who wants what signed by which authority, and why that was allowed.

    `tbs` is the TBSCertificate, byte for byte what is signed; `leaf_hash` its RFC 6962 leaf hash. `index` is its place
    in the issuance log, given by the journal (-1 until then). `asked_by` is a SPIFFE ID or the name of a local door;
    `authorized_by` names the rule and its version.
    """

    serial: int
    profile: str
    spiffe_id: SpiffeId
    authority_id: str
    key_hash: bytes
    not_before: datetime
    not_after: datetime
    tbs: bytes
    leaf_hash: bytes
    asked_by: str
    journalled_at: datetime
    entry_id: str | None = None
    authorized_by: str = ""
    index: int = -1


@dataclass(frozen=True, slots=True)
class Settled:
    """An intent together with its outcome (None: still open)."""

    intent: Intent
    outcome: Outcome | None
    settled_at: datetime | None
    reason: str
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class JwtRecord:
    """What is kept of an issued JWT-SVID: everything but the token itself, which is a bearer secret."""

    token_hash: bytes
    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    authority_id: str
    asked_by: str
    issued_at: datetime
    expires_at: datetime
    entry_id: str | None = None
    authorized_by: str = ""
