"""A decision in words: what was decided, by what, and what would have to be otherwise.

Owns: the sentences, as a list of lines made from a record's plain data. Does not own: the record, or its colours on a
terminal. The same sentences are shown by `livery explain`, `livery can` and the administrator's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_REASONS: Mapping[str, str] = {
    "permitted": "a policy permits it",
    "not_permitted": "no policy permits it",
    "forbidden": "a policy forbids it",
    "policy_error": "a forbidding policy could not be evaluated",
    "bad_subject": "the caller is no workload we can decide about",
    "bad_action": "the action is none we know",
    "bad_resource": "the callee is no service we can decide about",
    "bad_context": "the call's context cannot be read",
    "bad_path": "the path is not in normal form",
    "no_decision": "nobody could decide",
}


def sentences(record: Mapping[str, Any]) -> list[str]:
    """A decision's record (`DecisionRecord.as_dict`) in lines, the answer first."""
    allowed = record["outcome"] == "allow"
    where = f" {record['path']}" if "path" in record else f" port {record['port']}" if "port" in record else ""
    outcome = "allowed" if allowed else "denied"
    lines = [
        f"{outcome}: {record['principal']} → {record['action']}{where} → {record['resource']}",
        f"because {_REASONS.get(record['reason'], record['reason'])}{_detail(record)}",
    ]
    lines += [_near(miss) for miss in record.get("nearest", ())]
    lines += [f"could not be evaluated: {error}" for error in record.get("errors", ())]
    if record.get("dropped"):
        lines.append(f"not read, since no policy can know them: {', '.join(record['dropped'])}")
    if record.get("assumed"):
        lines.append("assumed: " + ", ".join(f"context.{name} is {value}" for name, value in record["assumed"].items()))
    version = record.get("version")
    lines.append(f"policies {version['digest'][:19]}…" if version else "no policies were loaded")
    return lines


def _detail(record: Mapping[str, Any]) -> str:
    policies: Sequence[str] = record.get("policies", ())
    if policies:
        return f": {', '.join(policies)}"
    said = record.get("detail", "")
    return f": {said}" if said and record["reason"] != "not_permitted" else ""


def _near(miss: Mapping[str, Any]) -> str:
    first, *more = miss["failed"]
    also = f" (and {len(more)} more)" if more else ""
    return f"nearest: {miss['policy']} at {miss['where']} failed on {first}{also}"
