"""A decision that was made, with the call it was made on: the unit of the log and of `livery explain`.

Owns: `DecisionRecord` and its plain-data form. Does not own: where it is kept or written (`log`).

Invariants: of a call, a record shows the parties, the action, and the path or the port; never the query, headers or
claims, which may hold anything. Texts that came from outside are cut, and what looks like a secret in them is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from livery.runtime.redaction import redact_text
from livery_policy.model.calls import Call
from livery_policy.model.decision import Decision, NearMiss

_MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision, whom it concerned, who asked and when."""

    decision: Decision
    call: Call
    asked_by: str
    at: datetime

    def as_dict(self) -> dict[str, object]:
        """Plain data: the fields of a log line, and what an administrator is told."""
        decision, call = self.decision, self.call
        found: dict[str, object] = {
            "time": self.at.isoformat(timespec="milliseconds"),
            "type": "decision",
            "id": decision.id,
            "outcome": str(decision.outcome),
            "reason": str(decision.reason),
            "principal": outside(call.principal),
            "action": outside(call.action),
            "resource": outside(call.resource),
            **_target(call.context),
            "policies": list(decision.policies),
            "version": decision.version.as_dict() if decision.version is not None else None,
            "detail": outside(decision.detail),
            "asked_by": self.asked_by,
        }
        if decision.nearest:
            found["nearest"] = [near_miss(miss) for miss in decision.nearest]
        if decision.errors:
            found["errors"] = [outside(error) for error in decision.errors[:10]]
        if decision.dropped:
            found["dropped"] = [outside(name) for name in decision.dropped]
        return found


def near_miss(miss: NearMiss) -> dict[str, object]:
    """A near miss as plain data; `failed` begins with the reason."""
    return {"policy": miss.policy, "where": miss.where, "failed": list(miss.failed), "held": miss.held}


@lru_cache(maxsize=4096)
def outside(text: str) -> str:
    """A text that came from outside: cut to a bound, without what looks like a secret. Callers repeat themselves."""
    shown = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    if not shown.isascii():
        shown = shown.encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair fits in no line
    return redact_text(shown)


def _target(context: Mapping[str, object]) -> dict[str, object]:
    for family in ("http", "grpc"):
        inner = context.get(family)
        if isinstance(inner, Mapping) and isinstance(inner.get("path"), str):
            return {"path": outside(inner["path"])}
    port = context.get("port")
    return {"port": port} if type(port) is int and abs(port) < 2**31 else {}
