"""Which agents know what: the change as of which each was last given all its entries.

Owns: that memory, one record an agent; a restart empties it. Does not own: when an answer is complete (`doors.entry`),
or which agents are asked about (`doors.delivery`).

Invariants: a record counts for the certificate it was made with and for no other, so it says nothing of a node that was
evicted, or attested anew, since. Records whose certificate has ended are forgotten: there are never more than twice as
many as agents that may call, and `SPARE` more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from livery.identity import SpiffeId, VerifiedX509Svid
from livery_ca.model import Node

SPARE = 1024


@dataclass(frozen=True, slots=True)
class _Record:
    serial: str
    ends_at: datetime
    position: int


class Deliveries:
    """The records."""

    def __init__(self) -> None:
        self._records: dict[SpiffeId, _Record] = {}
        self._sweep_at = SPARE

    def __len__(self) -> int:
        return len(self._records)

    def note(self, svid: VerifiedX509Svid, position: int, at: datetime) -> None:
        """The agent of this certificate has been given all its entries as of this change."""
        self._records[svid.id] = _Record(str(svid.serial), svid.not_after, position)
        if len(self._records) >= self._sweep_at:
            self._records = {agent: record for agent, record in self._records.items() if record.ends_at > at}
            self._sweep_at = 2 * len(self._records) + SPARE

    def position(self, node: Node) -> int:
        """The change as of which this node was last given all its entries; 0 if not with the certificate it has."""
        record = self._records.get(node.id)
        return 0 if record is None or record.serial != node.serial else record.position
