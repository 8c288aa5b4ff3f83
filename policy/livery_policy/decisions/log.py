"""The decision log: a JSON line for each decision, and the last ones in memory so that they can be explained.

Owns: both, and their bounds. Does not own: the stream (it is given one that takes whole lines).

Invariants: allowed calls, which are many, cannot push denied ones out of memory: each has a ring of its own, bounded in
records and in the size of each. A line that cannot be written is lost, and whoever adds it is told; the decision stands
(the audit log is the one that fails closed).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from livery_policy.decisions.record import DecisionRecord
from livery_policy.errors import UnknownDecision

_encode = msgspec.json.Encoder().encode


class Written(StrEnum):
    """Which decisions get a line."""

    ALL = "all"
    DENIED = "denied"
    NONE = "none"


class LineSink(Protocol):
    """Takes whole lines; raises OSError or ValueError if it cannot."""

    def write_line(self, line: str) -> None:
        """Write one line."""
        ...


class DecisionLog:
    """Lines to a sink, and the last `kept` allowed and `kept` denied decisions in memory."""

    def __init__(self, sink: LineSink | None, *, written: Written = Written.ALL, kept: int = 4096) -> None:
        self._sink = sink
        self._written = written if sink is not None else Written.NONE
        self._kept = kept
        self._allowed: dict[str, DecisionRecord] = {}
        self._denied: dict[str, DecisionRecord] = {}

    def add(self, record: DecisionRecord) -> bool:
        """Keep a record, and write its line if its kind is written. False if the line could not be written."""
        allowed = record.decision.allowed
        ring = self._allowed if allowed else self._denied
        if len(ring) >= self._kept:
            del ring[next(iter(ring))]
        ring[record.decision.id] = record.kept()
        is_written = self._written is Written.ALL or (self._written is Written.DENIED and not allowed)
        return self._write(record) if is_written else True

    def find(self, decision_id: str) -> DecisionRecord:
        """The record of a decision, or `UnknownDecision`."""
        found = self._denied.get(decision_id) or self._allowed.get(decision_id)
        if found is None:
            raise UnknownDecision(
                f"no decision {decision_id[:64]!a} is in memory",
                why=f"this server keeps the last {self._kept} allowed and the last {self._kept} denied ones",
                fix="look for the id in the decision log",
            )
        return found

    def _write(self, record: DecisionRecord) -> bool:
        assert self._sink is not None
        try:
            self._sink.write_line(_encode(record.as_dict()).decode())
        except (OSError, ValueError):
            return False
        return True
