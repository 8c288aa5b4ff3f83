"""AuthZEN's messages (Authorization API 1.0, sections 5 to 7 and 9) as our calls and back.

Owns: which members are read, which are required, and the form of an answer. Does not own: HTTP (`authzen`), and what a
context may hold (`model.calls`): that is decided with the call.

Invariants: unknown members are ignored (AZ-3); a required one that is missing, or is no string, is `BadRequest` (AZ-4);
an answer carries the decision, its id and the class of its reason, and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from livery_policy.model.calls import Call, Peer, Unreadable
from livery_policy.model.decision import Decision, Reason

SUBJECT_TYPE = "spiffe"
RESOURCE_TYPE = "service"
MAX_DROPPED = 20
# An enforcement point that is admitted vouches for its caller; where that caller is, it cannot vouch for.
VOUCHED = Peer(verified=True)
_DEFAULTS = ("subject", "action", "resource", "context")


class BadRequest(ValueError):
    """The message is not what the standard says; the text is the answer's body."""


class Semantic(StrEnum):
    """When a batch ends (AZ-8)."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"

    def ends_with(self, decision: bool) -> bool:
        """Whether this decision is the last of the batch."""
        if self is Semantic.DENY_ON_FIRST_DENY:
            return not decision
        return self is Semantic.PERMIT_ON_FIRST_PERMIT and decision


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One question; `refused` if its types are none that we decide about."""

    call: Call
    refused: Unreadable | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Several questions, each as the document it is after the defaults."""

    items: tuple[Mapping[str, object], ...]
    semantic: Semantic


def read_evaluation(document: Mapping[str, object]) -> Evaluation:
    """One evaluation request (AZ-1)."""
    subject, subject_type = _entity(document, "subject")
    resource, resource_type = _entity(document, "resource")
    action = _member(_object(document, "action"), "action", "name")
    context = document.get("context", {})
    if not isinstance(context, dict):
        raise BadRequest("context must be an object")
    call = Call(subject, action, resource, context, VOUCHED, dropped=_properties(document))
    if subject_type != SUBJECT_TYPE:
        why = f"its type is {subject_type[:40]!a}; we decide about {SUBJECT_TYPE!r}"
        return Evaluation(call, Unreadable(Reason.BAD_SUBJECT, f"the subject: {why}", call.dropped))
    if resource_type != RESOURCE_TYPE:
        why = f"its type is {resource_type[:40]!a}; we decide about {RESOURCE_TYPE!r}"
        return Evaluation(call, Unreadable(Reason.BAD_RESOURCE, f"the resource: {why}", call.dropped))
    return Evaluation(call)


def read_batch(document: Mapping[str, object], most: int) -> Batch | None:
    """A batch, or None if the request is a single evaluation after all (AZ-7: no evaluations, or an empty list)."""
    items = document.get("evaluations", [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadRequest("evaluations must be a list of objects")
    semantic = _semantic(document.get("options", {}))
    if not items:
        return None
    if len(items) > most:
        raise BadRequest(f"evaluations has more than {most} items")
    defaults = {name: document[name] for name in _DEFAULTS if name in document}
    # A member of an item replaces the default whole (AZ-7): nothing is merged.
    return Batch(tuple({**defaults, **item} for item in items), semantic)


def answer(decision: Decision) -> dict[str, object]:
    """A decision as the standard has it (AZ-2)."""
    return {"decision": decision.allowed, "context": {"id": decision.id, "reason": str(decision.reason)}}


def failed_item(error: BadRequest) -> dict[str, object]:
    """An item of a batch that is no evaluation request (AZ-9)."""
    return {"decision": False, "context": {"error": {"status": 400, "message": str(error)}}}


def batch_answer(answers: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The answers of a batch, without a decision of its own (AZ-9)."""
    return {"evaluations": list(answers)}


def metadata(base: str) -> dict[str, str]:
    """What the standard calls the policy decision point's metadata (AZ-13); what we do not serve is not in it."""
    return {
        "policy_decision_point": base,
        "access_evaluation_endpoint": f"{base}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{base}/access/v1/evaluations",
    }


def _semantic(options: object) -> Semantic:
    if not isinstance(options, dict):
        raise BadRequest("options must be an object")
    try:
        return Semantic(options.get("evaluations_semantic", Semantic.EXECUTE_ALL))
    except ValueError:
        raise BadRequest(f"options.evaluations_semantic must be one of {', '.join(Semantic)}") from None


def _entity(document: Mapping[str, object], name: str) -> tuple[str, str]:
    """The id and the type of a subject or resource."""
    found = _object(document, name)
    return _member(found, name, "id"), _member(found, name, "type")


def _object(document: Mapping[str, object], name: str) -> dict[str, object]:
    if name not in document:
        raise BadRequest(f"{name} is missing")
    found = document[name]
    if not isinstance(found, dict):
        raise BadRequest(f"{name} must be an object")
    if not isinstance(found.get("properties", {}), dict):
        raise BadRequest(f"{name}.properties must be an object")
    return found


def _member(found: Mapping[str, object], name: str, member: str) -> str:
    if member not in found:
        raise BadRequest(f"{name}.{member} is missing")
    value = found[member]
    if not isinstance(value, str):
        raise BadRequest(f"{name}.{member} must be a string")
    return value


def _properties(document: Mapping[str, object]) -> tuple[str, ...]:
    """Properties that were sent: we know none, so their names go to the log."""
    names: list[str] = []
    for name in ("subject", "action", "resource"):
        found = document[name]
        properties = found.get("properties") if isinstance(found, dict) else None
        if isinstance(properties, dict):
            names += [f"{name}.properties.{key[:80]}" for key in islice(properties, MAX_DROPPED - len(names))]
    return tuple(names)
