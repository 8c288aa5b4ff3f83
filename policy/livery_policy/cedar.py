"""The one place that speaks to cedarpy: parsing, validating, asking.

Owns: the handles' types, `ask` and the translation of Cedar's errors into ours. Does not own: what is asked or what an
answer means (`engine.decide`).

Invariants: requests carry dictionaries for entity ids (quoting cannot be gotten wrong, and strings cost 30 µs more) and
never a schema: the context was checked at the edge, and a trimmed context beside a schema gives no decision at all.
Entities are parsed with the schema, or Cedar would not know which action is in which group.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import cedarpy
from cedarpy import Entities, PolicySet, Schema, pst

from livery_policy.errors import InvalidVocabulary


@dataclass(frozen=True, slots=True)
class Question:
    """One question: entity ids as (type, id), and the context as JSON text."""

    principal: tuple[str, str]
    action: tuple[str, str]
    resource: tuple[str, str]
    context: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What Cedar said. `allowed` is None if it could not decide; `reasons` and `errors` are policy ids and texts."""

    allowed: bool | None
    reasons: tuple[str, ...]
    errors: tuple[str, ...]


class Evaluator(Protocol):
    """Whoever answers questions: `ask`, or a stand-in that fails on purpose."""

    def __call__(self, question: Question, policies: PolicySet, entities: Entities) -> Answer:
        """Answer one question on one set of policies and entities."""
        ...


def ask(question: Question, policies: PolicySet, entities: Entities) -> Answer:
    """Ask Cedar. Holds the interpreter's lock for some tens of microseconds."""
    result = cedarpy.is_authorized(
        {
            "principal": _uid(question.principal),
            "action": _uid(question.action),
            "resource": _uid(question.resource),
            "context": question.context,
        },
        policies,
        entities,
    )
    diagnostics = result.diagnostics
    decided = {cedarpy.Decision.Allow: True, cedarpy.Decision.Deny: False}.get(result.decision)
    return Answer(decided, tuple(diagnostics.reasons), tuple(diagnostics.errors))


def schema(text: str) -> Schema:
    """Parse a schema."""
    try:
        return Schema.from_str(text, release_gil=True)
    except ValueError as e:
        raise InvalidVocabulary("the schema is not valid", why=str(e)) from e


def entities(json_text: str, of_schema: Schema) -> Entities:
    """Parse entities, each checked against the schema."""
    return Entities.from_json_str(json_text, of_schema)


def action_groups(of_schema: Schema) -> Mapping[str, frozenset[str]]:
    """Each action's groups, their groups included: Cedar has closed over them when it parsed the schema."""
    found = json.loads(str(entities("[]", of_schema)))
    return {e["uid"]["id"]: frozenset(p["id"] for p in e["parents"]) for e in found}


def policies_from_json(members: Mapping[str, str]) -> PolicySet:
    """A set of policies from their JSON texts, under ids of our choosing."""
    body = ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items())
    return PolicySet.from_json_str(f'{{"templates":{{}},"templateLinks":[],"staticPolicies":{{{body}}}}}')


def policies_from_nodes(templates: Mapping[str, pst.Template]) -> PolicySet:
    """A set of policies from their trees, under the ids they carry."""
    nodes = pst.PolicySet(templates={}, static_policies=dict(templates), template_links=())
    return PolicySet.from_pst(nodes)


def policies_to_json(text: str) -> str:
    """Policy text in Cedar's JSON form."""
    return cedarpy.policies_to_json_str(text)


def validation_errors(policy: str, of_schema: Schema) -> list[str]:
    """What Cedar's strict validator says of one policy's text; empty if it fits the schema."""
    result = cedarpy.validate_policies(policy, of_schema, release_gil=True)
    if result.validation_passed:
        return []
    return [e.error.removeprefix("for policy `policy0`, ") for e in result.errors] or ["not valid"]


def _uid(uid: tuple[str, str]) -> dict[str, str]:
    return {"type": uid[0], "id": uid[1]}


__all__ = [
    "Answer",
    "Entities",
    "Evaluator",
    "PolicySet",
    "Question",
    "Schema",
    "action_groups",
    "ask",
    "entities",
    "policies_from_json",
    "policies_from_nodes",
    "policies_to_json",
    "pst",
    "schema",
    "validation_errors",
]
