"""An audit trail that a test can read back, and that it can make refuse."""

from __future__ import annotations

from livery.runtime.audit import AuditUnavailable


class RecordingAudit:
    """An `Audit` that keeps what it was told in `events`; with `broken` set, it fails closed as the real one does."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.broken = False

    def record(self, event: str, outcome: str, **fields: object) -> None:
        if self.broken:
            raise AuditUnavailable("an audit record could not be written, so the request was not carried out")
        self.events.append({"event": event, "outcome": outcome, **fields})

    def of(self, event: str) -> list[dict[str, object]]:
        """The records of this event, oldest first."""
        return [record for record in self.events if record["event"] == event]
