"""Why a call was not permitted: the permits that came nearest, and what of each failed.

Owns: `Nearest`. Does not own: the decision itself; nothing here can change it.

How: a permit is its three scope axes and its conditions, each `&&` apart. The axes are compared here, by the same keys
the slices use; the conditions become probes, permits of one condition each, and one more evaluation over all probes
tells which hold. Order: fewest failed parts first, then id; at most three. A later condition may stand behind a guard
(`context has jwt && …`) and fail for that, so the first failed part is the reason.

Cost: bounded. At most `MAX_SCANNED` permits are compared and `MAX_PROBED` of them probed, those with the fewest failed
axes; probes are built once per group of permits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livery_policy import cedar
from livery_policy.cedar import pst
from livery_policy.engine.clauses import ANY, Key
from livery_policy.engine.compiling import CompiledPolicy, CompiledSet
from livery_policy.model.decision import NearMiss

MAX_SHOWN = 3
MAX_PROBED = 24
MAX_SCANNED = 5000
_MAX_GROUPS = 256

ScopeKeys = tuple[frozenset[Key], frozenset[Key], frozenset[Key]]  # principal, action, resource


@dataclass(frozen=True, slots=True)
class _Candidate:
    policy: CompiledPolicy
    failed_axes: tuple[str, ...]


class Nearest:
    """Finds near misses in one compiled set."""

    def __init__(self, compiled: CompiledSet, evaluator: cedar.Evaluator) -> None:
        self._permits = [p for p in compiled.policies if p.effect == "permit"][:MAX_SCANNED]
        self._evaluator = evaluator
        self._probes: dict[tuple[str, ...], cedar.PolicySet] = {}

    def find(self, question: cedar.Question, keys: ScopeKeys, entities: cedar.Entities) -> tuple[NearMiss, ...]:
        """The nearest permits; `question` carries the whole context."""
        scanned = [_Candidate(p, tuple(_failed_axes(p, keys))) for p in self._permits]
        candidates = sorted(scanned, key=lambda c: (len(c.failed_axes), c.policy.id))[:MAX_PROBED]
        if not candidates:
            return ()
        held = frozenset(self._evaluator(question, self._probes_of(candidates), entities).reasons)
        misses = [_miss(c, held) for c in candidates]
        return tuple(sorted((m for m in misses if m), key=lambda m: (len(m.failed), m.policy))[:MAX_SHOWN])

    def _probes_of(self, candidates: Sequence[_Candidate]) -> cedar.PolicySet:
        group = tuple(c.policy.id for c in candidates)
        if (probes := self._probes.get(group)) is None:
            if len(self._probes) >= _MAX_GROUPS:
                del self._probes[next(iter(self._probes))]
            named = [
                _probe(_name(c.policy, n), condition)
                for c in candidates
                for n, condition in enumerate(c.policy.conditions)
            ]
            probes = self._probes[group] = cedar.policies_from_nodes({p.id: p for p in named})
        return probes


def _miss(candidate: _Candidate, held: frozenset[str]) -> NearMiss | None:
    policy = candidate.policy
    holds = [_name(policy, n) in held for n in range(len(policy.conditions))]
    failed = list(candidate.failed_axes)
    if not all(holds):
        failed.extend(text for text, ok in zip(policy.condition_texts, holds, strict=True) if not ok)
    if not failed:
        return None  # nothing of it failed: it was added since, or Cedar could not evaluate it as a whole
    return NearMiss(policy.id, policy.where, tuple(failed), 3 + len(holds) - len(failed))


def _failed_axes(policy: CompiledPolicy, keys: ScopeKeys) -> list[str]:
    principals, actions, resources = keys
    failed = []
    if policy.principal not in principals:
        failed.append(f"principal {_scope_text(policy.principal)}")
    if actions.isdisjoint(policy.actions):
        failed.append(f"action {' or '.join(_scope_text(key) for key in policy.actions)}")
    if policy.resource not in resources:
        failed.append(f"resource {_scope_text(policy.resource)}")
    return failed


def _scope_text(key: Key) -> str:
    if key == ANY:
        return "any"
    if key[0] == "is":
        return f"is {key[1]}"
    return f'{key[0]} {key[1]}::"{key[2]}"'


def _name(policy: CompiledPolicy, number: int) -> str:
    return f"{policy.id}#{number}"


def _probe(name: str, condition: pst.Clause) -> pst.Template:
    return pst.Template(name, "permit", pst.ScopeAny(), pst.ScopeAny(), pst.ScopeAny(), (condition,), {})
