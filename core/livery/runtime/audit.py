"""The audit trail: one JSON line (`"type": "audit"`) for each thing somebody may have to answer for later.

Owns: the form of an audit record and the promise that a recorded event was written. Does not own: which events are
recorded (each door says so), nor where the sink leads.

Invariant: it fails closed. If the sink does not take the whole line, `record` raises `AuditUnavailable` (kind
UNAVAILABLE) and the caller must not carry out, or not answer, what it meant to record. Call it before the effect.
"""

from __future__ import annotations

import json
from typing import ClassVar, Protocol

import structlog

from livery.errors import Kind, LiveryError
from livery.runtime.clock import Clock
from livery.runtime.logging import Sink
from livery.runtime.redaction import redact


class AuditUnavailable(LiveryError):
    """The audit sink did not take a record, so the recorded thing must not happen."""

    code: ClassVar[str] = "audit_unavailable"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class Audit(Protocol):
    """Where events go that somebody may have to answer for."""

    def record(self, event: str, outcome: str, **fields: object) -> None:
        """Record `event` (a noun and a verb: `svid.issue`) and its `outcome` (`granted`, `refused`, `failed`)."""
        ...


class AuditLog:
    """Audit records as JSON lines in the process's sink."""

    __slots__ = ("_clock", "_role", "_sink")

    def __init__(self, role: str, sink: Sink, clock: Clock) -> None:
        self._role = role
        self._sink = sink
        self._clock = clock

    def record(self, event: str, outcome: str, **fields: object) -> None:
        """Write one record, or raise `AuditUnavailable`. Secrets in `fields` are hidden as in the log."""
        head = {
            "time": self._clock.now().isoformat(timespec="milliseconds"),
            "type": "audit",
            "event": event,
            "outcome": outcome,
            "role": self._role,
        }
        line = json.dumps(redact({**structlog.contextvars.get_contextvars(), **fields, **head}), ensure_ascii=False)
        try:
            self._sink.write_line(line)
        except (OSError, ValueError) as cause:
            what = "an audit record could not be written, so the request was not carried out"
            raise AuditUnavailable(what, why=str(cause), fix="make the process's log writable again") from cause
