"""Findings about a policy that Cedar's validator has no opinion on.

Owns: one function per rule. Does not own: syntax and types (`compiling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from livery.identity import IdentityError, SpiffeId, TrustDomain
from livery_policy.cedar import pst
from livery_policy.engine.clauses import ANY, Key, reads_attribute
from livery_policy.engine.findings import Severity
from livery_policy.model.entities import PATH_PREFIX, SERVICE, TRUST_DOMAIN, WORKLOAD

GLOBAL_BUDGET = 20  # policies that stand in every slice, and so cost something on every call

Rule = tuple[str, str, Severity]  # code, message, severity


def of_policy(template: pst.Template) -> Iterator[Rule]:
    """What is worth saying about one policy that is otherwise valid."""
    yield from _literals(template)
    if reads_attribute(template, "selectors"):
        message = "no one feeds selectors to this server yet: principal.selectors is always the empty set"
        yield "no-selectors", message, Severity.WARNING


def over_budget(scopes: Sequence[tuple[Key, Key]]) -> set[int]:
    """Which policies, by their place, are global (any principal, any resource) beyond the budget."""
    everywhere = [n for n, (principal, resource) in enumerate(scopes) if principal == resource == ANY]
    return set(everywhere[GLOBAL_BUDGET:])


def _literals(template: pst.Template) -> Iterator[Rule]:
    """An entity that no SPIFFE ID can have: a permit on it is dead, and a forbid on it silently protects nothing."""
    for uid in sorted(pst.entity_uids(template), key=str):
        if why := _why_impossible(str(uid.type), uid.id):
            yield "impossible-entity", f"{uid} can never occur: {why}", Severity.ERROR


def _why_impossible(entity_type: str, entity_id: str) -> str:
    try:
        if entity_type == TRUST_DOMAIN:
            TrustDomain(entity_id)
        elif entity_type in {WORKLOAD, SERVICE, PATH_PREFIX}:
            found = SpiffeId.parse(entity_id)
            return "it has no path; write a TrustDomain" if found.is_root else ""
    except IdentityError as e:
        return e.why or str(e)
    return ""
