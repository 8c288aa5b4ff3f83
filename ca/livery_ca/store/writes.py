"""Writes that must be in the same transaction as an issuance record, as values.

Owns: the closed list of such writes. Does not own: their SQL (`store.nodes`, `store.tokens`). A caller of the issuance
pipeline names them; the pipeline passes them on unread, so it knows no SQL and they cannot be torn from their record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from livery.identity import SpiffeId
from livery_ca.model import Node


@dataclass(frozen=True, slots=True)
class SpendToken:
    """Bind the join token to this key. Refused when it is unknown, has ended, or belongs to another key."""

    token: str = field(repr=False)
    key_hash: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class RefuseKnown:
    """Nothing is written; refused when a node of one of these names is there at that moment, banned or not."""

    ids: tuple[SpiffeId, ...]


@dataclass(frozen=True, slots=True)
class AttestNode:
    """Create the node or replace it (its selectors too). Refused when the node is banned at that moment."""

    node: Node


@dataclass(frozen=True, slots=True)
class RenewNode:
    """Give the node a new serial beside its current one. Refused when it is gone or banned."""

    id: SpiffeId
    new_serial: str
    new_expires_at: datetime


Write = SpendToken | RefuseKnown | AttestNode | RenewNode
