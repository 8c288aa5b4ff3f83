"""The few policies of a set that can apply to one call, found by its scope: equivalent to asking the whole set.

Owns: the index, `Slice`, and the bounded memories of both. Does not own: evaluating.

Invariant: a slice holds every policy whose scope the call satisfies. It may hold more, since Cedar checks scopes again;
one too few would be a lost `forbid`. So a call is looked up by everything it is or is in: any, its type, itself, and
every ancestor, on all three axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from livery_policy import cedar
from livery_policy.engine.clauses import WHOLE, Key, Path, keys_of, without_shadowed
from livery_policy.engine.compiling import CompiledPolicy, CompiledSet
from livery_policy.model.entities import ACTION, SERVICE, WORKLOAD, Pair, Uid

_NOW: Path = ("now",)


@dataclass(frozen=True, slots=True)
class Slice:
    """Some policies of a set, ready to be asked."""

    identity: bytes  # of the policies' ids and texts: the same slice of another version has the same
    handle: cedar.PolicySet
    forbids: frozenset[str]
    paths: tuple[Path, ...]  # of the context, sorted
    cacheable: bool  # False if the answer depends on the time


@dataclass(slots=True)
class _Node:
    """One level of the index: a key leads to the next level, or to policies."""

    below: dict[Key, _Node] = field(default_factory=dict)
    policies: list[int] = field(default_factory=list)

    def at(self, key: Key) -> _Node:
        return self.below.setdefault(key, _Node())


class Slices:
    """The index of a set, and its slices as far as calls have asked for them."""

    def __init__(self, compiled: CompiledSet, *, slices: int = 4096, calls: int = 16384) -> None:
        self._policies = compiled.policies
        self._action_keys = {
            name: keys_of(ACTION, name, _uids(groups)) for name, groups in compiled.action_groups.items()
        }
        self._root = _Node()
        for number, policy in enumerate(compiled.policies):
            at = self._root.at(policy.resource).at(policy.principal)
            for action in policy.actions:
                at.at(action).policies.append(number)
        self._slices: dict[tuple[int, ...], Slice] = {}
        self._calls: dict[tuple[str, str, str], Slice] = {}
        self._max_slices, self._max_calls = slices, calls

    def find(self, pair: Pair, action: str) -> Slice:
        """The slice for a call between these two. `action` is one of the schema's."""
        key = (pair.principal, action, pair.resource)
        if (found := self._calls.get(key)) is None:
            numbers = self._look_up(pair, action)
            found = self._slices.get(numbers) or self._build(numbers)
            _keep(self._calls, key, found, self._max_calls)
        return found

    def scope_keys(self, pair: Pair, action: str) -> tuple[frozenset[Key], frozenset[Key], frozenset[Key]]:
        """The keys under which policies apply to this principal, this action and this resource."""
        return (
            frozenset(keys_of(WORKLOAD, pair.principal, pair.principal_ancestors)),
            frozenset(self._action_keys[action]),
            frozenset(keys_of(SERVICE, pair.resource, pair.resource_ancestors)),
        )

    def _look_up(self, pair: Pair, action: str) -> tuple[int, ...]:
        resources = keys_of(SERVICE, pair.resource, pair.resource_ancestors)
        principals = keys_of(WORKLOAD, pair.principal, pair.principal_ancestors)
        found: set[int] = set()
        for by_resource in _present(self._root, resources):
            for by_principal in _present(by_resource, principals):
                for by_action in _present(by_principal, self._action_keys[action]):
                    found.update(by_action.policies)
        return tuple(sorted(found))

    def _build(self, numbers: tuple[int, ...]) -> Slice:
        policies = [self._policies[n] for n in numbers]
        paths = without_shadowed(path for p in policies for path in p.paths)
        built = Slice(
            identity=_identity(policies),
            handle=cedar.policies_from_json({p.id: p.json_text for p in policies}),
            forbids=frozenset(p.id for p in policies if p.effect == "forbid"),
            paths=tuple(sorted(paths)),
            cacheable=WHOLE not in paths and not any(path[:1] == _NOW for path in paths),
        )
        _keep(self._slices, numbers, built, self._max_slices)
        return built


def whole(compiled: CompiledSet) -> Slice:
    """The whole set as one slice: what every other slice must agree with."""
    return Slices(compiled)._build(tuple(range(len(compiled.policies))))  # noqa: SLF001 - the same module


def _uids(actions: Iterable[str]) -> list[Uid]:
    return [(ACTION, name) for name in actions]


def _present(node: _Node, keys: Iterable[Key]) -> Iterator[_Node]:
    for key in keys:
        if (below := node.below.get(key)) is not None:
            yield below


def _identity(policies: Iterable[CompiledPolicy]) -> bytes:
    digest = hashlib.sha256()
    for policy in policies:
        for part in (policy.id, policy.json_text):
            digest.update(len(part).to_bytes(8, "big") + part.encode())
    return digest.digest()[:16]


_K = TypeVar("_K")
_V = TypeVar("_V")


def _keep(memory: dict[_K, _V], key: _K, value: _V, capacity: int) -> None:
    """Keep a value, forgetting the oldest when full: callers choose the keys."""
    if len(memory) >= capacity:
        del memory[next(iter(memory))]
    memory[key] = value
