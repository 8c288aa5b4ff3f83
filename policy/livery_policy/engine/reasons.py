"""Why a call was not permitted: the permits that came nearest, and what of each failed.

Owns: `Nearest`. Does not own: the decision itself; nothing here can change it.

How: a permit is its three scope axes and its conditions, each `&&` apart. The axes are compared here, by the same keys
the slices use; the conditions become probes, permits of one condition each, and one more evaluation over all probes
tells which hold. Order: fewest failed parts first, then id; at most three. A later condition may stand behind a guard
(`context has jwt && …`) and fail for that, so the first failed part is the reason.

Cost: hardly grows with the set. Which permits fail on how many axes is found for all of them at once, by sets of bits;
`MAX_PROBED` with the fewest are probed, and probes are built once per group of permits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from livery_policy import cedar
from livery_policy.cedar import pst
from livery_policy.engine.clauses import ANY, Key
from livery_policy.engine.compiling import CompiledPolicy, CompiledSet
from livery_policy.model.decision import NearMiss

MAX_SHOWN = 3
MAX_PROBED = 12
_MAX_GROUPS = 256

ScopeKeys = tuple[frozenset[Key], frozenset[Key], frozenset[Key]]  # principal, action, resource


class Nearest:
    """Finds near misses in one compiled set."""

    def __init__(self, compiled: CompiledSet, evaluator: cedar.Evaluator) -> None:
        self._permits = [p for p in compiled.policies if p.effect == "permit"]  # sorted by id
        self._principals = _bits((p.principal,) for p in self._permits)
        self._actions = _bits(p.actions for p in self._permits)
        self._resources = _bits((p.resource,) for p in self._permits)
        self._evaluator = evaluator
        self._probes: dict[tuple[str, ...], cedar.PolicySet] = {}

    def find(self, question: cedar.Question, keys: ScopeKeys, entities: cedar.Entities) -> tuple[NearMiss, ...]:
        """The nearest permits; `question` carries the whole context."""
        candidates = self._candidates(keys)
        if not candidates:
            return ()
        held = frozenset(self._evaluator(question, self._probes_of(candidates), entities).reasons)
        misses = [_miss(p, keys, held) for p in candidates]
        return tuple(sorted((m for m in misses if m), key=lambda m: (len(m.failed), m.policy))[:MAX_SHOWN])

    def _candidates(self, keys: ScopeKeys) -> list[CompiledPolicy]:
        """The permits with the fewest failed axes, those that fail on as many in the order of their ids."""
        p = _any_of(self._principals, keys[0])
        a = _any_of(self._actions, keys[1])
        r = _any_of(self._resources, keys[2])
        everyone = (1 << len(self._permits)) - 1
        found: list[CompiledPolicy] = []
        seen = 0
        for tier in (p & a & r, p & a | p & r | a & r, p | a | r, everyone):  # at most 0, 1, 2, 3 axes failed
            waiting = tier & ~seen
            while waiting and len(found) < MAX_PROBED:
                lowest = waiting & -waiting
                found.append(self._permits[lowest.bit_length() - 1])
                waiting ^= lowest
            seen |= tier
        return found

    def _probes_of(self, candidates: Sequence[CompiledPolicy]) -> cedar.PolicySet:
        group = tuple(p.id for p in candidates)
        if (probes := self._probes.get(group)) is None:
            if len(self._probes) >= _MAX_GROUPS:
                del self._probes[next(iter(self._probes))]
            named = [
                _probe(_name(policy, n), condition)
                for policy in candidates
                for n, condition in enumerate(policy.conditions)
            ]
            probes = self._probes[group] = cedar.policies_from_nodes({p.id: p for p in named})
        return probes


def _miss(policy: CompiledPolicy, keys: ScopeKeys, held: frozenset[str]) -> NearMiss | None:
    holds = [_name(policy, n) in held for n in range(len(policy.conditions))]
    failed = _failed_axes(policy, keys)
    if not all(holds):
        failed.extend(text for text, ok in zip(policy.condition_texts, holds, strict=True) if not ok)
    if not failed:
        return None  # nothing of it failed: it was added since, or Cedar could not evaluate it as a whole
    return NearMiss(policy.id, policy.where, tuple(failed), 3 + len(holds) - len(failed))


def _bits(keys_of_each: Iterable[Iterable[Key]]) -> dict[Key, int]:
    """For each key, the permits that stand under it: permit n as bit n."""
    found: dict[Key, int] = {}
    for n, keys in enumerate(keys_of_each):
        for key in keys:
            found[key] = found.get(key, 0) | 1 << n
    return found


def _any_of(bits: dict[Key, int], keys: Iterable[Key]) -> int:
    """The permits that stand under any of these keys."""
    found = 0
    for key in keys:
        found |= bits.get(key, 0)
    return found


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
