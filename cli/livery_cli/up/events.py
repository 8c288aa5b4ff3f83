"""What `livery up` says: one event a line in JSON, or a sentence.

Owns: the shape of the stream that scripts rely on (`schema` 1). Does not own: when an event happens. The first is
always `ready`, the last always `stopped`; between them `rotated`, `call`, `explained`, `degraded`,
`recovered`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: its name and its fields, in the order they are printed."""

    name: str
    time: datetime
    fields: Mapping[str, object]

    def line(self) -> str:
        """The event as one line of JSON."""
        stamp = self.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"event": self.name, "schema": SCHEMA, "time": stamp, **self.fields}, default=str)

    def sentence(self) -> str:
        """The event as a person reads it, after its time."""
        form = _SENTENCES.get(self.name, _plain)
        return f"{self.time:%H:%M:%S} {self.name:<9} {form(self.fields)}"


def _plain(fields: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in fields.items())


def _call(fields: Mapping[str, object]) -> str:
    said = f"{fields['from']} -> {fields['to']} {fields['method']} {fields['path']}: {fields['outcome']}"
    return f"{said} ({fields['reason']})" if fields.get("reason") else said


def _rotated(fields: Mapping[str, object]) -> str:
    until = datetime.fromisoformat(str(fields["expires_at"]))
    return f"{fields['service']} has serial {str(fields['serial'])[:8]}… until {until:%H:%M:%S}"


def _trouble(fields: Mapping[str, object]) -> str:
    return f"{fields['what']}: {fields['why']}"


def _explained(fields: Mapping[str, object]) -> str:
    return f"denied {fields['reason']}"


def _stopped(fields: Mapping[str, object]) -> str:
    if not fields["calls"]:
        return f"{fields['rotations']} rotations, no calls"
    return (
        f"{fields['rotations']} rotations, {fields['calls']} calls ({fields['allowed']} allowed, {fields['denied']} "
        f"denied, {fields['failures']} failed), p50 {fields['p50_ms']} ms, p99 {fields['p99_ms']} ms"
    )


_SENTENCES: Mapping[str, Callable[[Mapping[str, object]], str]] = {
    "call": _call,
    "rotated": _rotated,
    "degraded": _trouble,
    "recovered": _trouble,
    "explained": _explained,
    "stopped": _stopped,
}
