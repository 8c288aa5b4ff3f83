"""An attested node: the agent's SPIFFE ID, the serials it may use, and what its attestation proved.

Owns: `Node`, `NodeFilter`. Does not own: how a node is attested (`attest`) or who may call as it (`doors.guard`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from livery.identity import Selector, SpiffeId
from livery_ca.model.listing import SelectorMatch


@dataclass(frozen=True, slots=True)
class Node:
    """One attested node. Serials are decimal strings, as in `x509svid_serial_number`.

    `new_serial` is what a renewal issued and the agent has not used yet; its first use makes it `serial`. Banned is
    both serials empty, as SPIRE has it: no certificate of the node is acceptable and the row stays.
    """

    id: SpiffeId
    attestation_type: str
    serial: str
    serial_expires_at: datetime
    can_reattest: bool
    selectors: tuple[Selector, ...] = ()
    new_serial: str = ""
    new_expires_at: datetime | None = None
    agent_version: str = ""
    bundle_sequence: int | None = None

    @property
    def banned(self) -> bool:
        """Whether an operator has banned the node."""
        return not self.serial and not self.new_serial


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """What a list of nodes is narrowed by; None leaves a field open. Fields given hold together (and)."""

    attestation_type: str | None = None
    selectors: SelectorMatch | None = None
    banned: bool | None = None
    can_reattest: bool | None = None
    expires_before: datetime | None = None
