"""Findings about a policy that Cedar's validator has no opinion on.

Owns: one function per rule. Does not own: syntax and types (`compiling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from livery.identity import IdentityError, SpiffeId, TrustDomain
from livery_policy.cedar import pst
from livery_policy.engine.clauses import ANY, Key, Mention, mentions
from livery_policy.findings import Severity
from livery_policy.model.context import Known
from livery_policy.model.entities import PATH_PREFIX, SERVICE, TRUST_DOMAIN, WORKLOAD

GLOBAL_BUDGET = 20  # policies that stand in every slice, and so cost something on every call

Rule = tuple[str, str, Severity]  # code, message, severity


def of_policy(template: pst.Template, known: Known) -> Iterator[Rule]:
    """What is worth saying about one policy that is otherwise valid. `known` is what its calls can have."""
    yield from _literals(template)
    mentioned = sorted(mentions(template))
    yield from dict.fromkeys(rule for mention in mentioned for rule in _unknown(mention, known))
    for mention in mentioned:
        if mention == ("principal", ("selectors",)):
            message = "no one feeds selectors to this server yet: principal.selectors is always the empty set"
            yield "no-selectors", message, Severity.WARNING


def _unknown(mention: Mention, known: Known) -> Iterator[Rule]:
    """An attribute that no call by the policy's actions can have.

    `has` on it is false without an error: a forbid on it protects nothing.
    """
    root, path = mention
    below: Known | None = known.get(root)
    for depth, name in enumerate(path):
        if below is None:
            return
        if name not in below:
            where = ".".join((root, *path[:depth]))
            fix = "; list it in `headers`" if path[:depth][-1:] == ("headers",) else ""
            fix = "; list it in `claims`" if path[:depth] == ("jwt",) else fix
            yield "unknown-attribute", f'{where} never has "{name}"{fix}', Severity.ERROR
            return
        below = below[name]


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
