"""A decision that was made, with the call it was made on: the unit of the log and of `livery explain`.

Owns: `DecisionRecord` and its plain-data form. Does not own: where it is kept or written (`log`).

Invariants: of a call, a record shows the parties, the action, and the path or the port; never the query, headers or
claims, which may hold anything. Texts that came from outside are cut, and what looks like a secret in them is hidden.
What is kept of a call is bounded: callers choose its size, and thousands of records are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from livery.runtime.redaction import redact_text
from livery_policy.model.calls import Call
from livery_policy.model.decision import Decision, NearMiss

_MAX_TEXT = 512
MAX_KEPT = 8192  # bytes of a call, about, that is kept as it is


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision, whom it concerned, who asked and when. `is_whole` is False if the call was cut to what is shown."""

    decision: Decision
    call: Call
    asked_by: str
    at: datetime
    is_whole: bool = True

    def kept(self) -> DecisionRecord:
        """The record as it may be kept: a call that is larger than `MAX_KEPT` is cut."""
        return self if _is_small(self.call) else replace(self, call=_cut(self.call), is_whole=False)

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


def outside(text: str) -> str:
    """A text that came from outside: cut to a bound, without what looks like a secret."""
    return _outside(_beginning(text))


@lru_cache(maxsize=4096)  # callers repeat themselves
def _outside(text: str) -> str:
    shown = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    if not shown.isascii():
        shown = shown.encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair fits in no line
    return redact_text(shown)


def _beginning(text: str) -> str:
    return text[: _MAX_TEXT + 1]  # one more than is shown, so that it still shows that it was cut


def _target(context: Mapping[str, object]) -> dict[str, object]:
    if (path := _path(context)) is not None:
        return {"path": outside(path)}
    port = context.get("port")
    return {"port": port} if type(port) is int and abs(port) < 2**31 else {}


def _path(context: Mapping[str, object]) -> str | None:
    """The path that was asked about. One that came with its query is no path, but the query is no less secret."""
    for family in ("http", "grpc"):
        inner = context.get(family)
        if isinstance(inner, Mapping) and isinstance(path := inner.get("path"), str):
            shown, mark, _ = path.partition("?")
            return f"{shown}?…" if mark else path
    return None


def _is_small(call: Call) -> bool:
    """Whether the call takes no more memory than `MAX_KEPT`, about. Looks at little more of it than that."""
    left = MAX_KEPT - len(call.principal) - len(call.action) - len(call.resource)
    waiting: list[object] = [call.context]
    while waiting and left >= 0:
        item = waiting.pop()
        if isinstance(item, str):
            left -= 64 + len(item)
        elif isinstance(item, (dict, Mapping)):
            left -= 128 + 64 * len(item) + sum(map(len, item))
            if left >= 0:
                waiting += item.values()
        elif isinstance(item, list):
            left -= 64 + 8 * len(item)
            if left >= 0:
                waiting += item
        else:
            left -= 64
    return left >= 0


def _cut(call: Call) -> Call:
    """What a record shows of a call, as far as it shows it."""
    path = _path(call.context)
    context = _target(call.context) if path is None else {"http": {"path": _beginning(path)}}
    principal, action, resource = (_beginning(text) for text in (call.principal, call.action, call.resource))
    return Call(principal, action, resource, context, call.peer)
