"""Answers already given, by everything they depend on.

Owns: `DecisionCache` and the key's typed form. Does not own: which parts of a context an answer depends on (`slices`).

Invariants: a value stands in the key with its type, since in Python `True == 1 == 1.0`; containers stand in it as
encoded bytes; what is missing as `MISSING`, which equals nothing a caller can send. Callers choose the values, so the
memory is bounded in entries, and a key that is long is not kept at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from livery_policy.engine.clauses import Path
from livery_policy.model.decision import Reason

MAX_VALUE = 512  # characters of a value in a key; longer ones are not worth their memory


class _Missing(Enum):
    MISSING = "missing"


MISSING = _Missing.MISSING


@dataclass(frozen=True, slots=True)
class Verdict:
    """The part of a decision that is the same each time."""

    reason: Reason
    policies: tuple[str, ...]
    errors: tuple[str, ...] = ()


class DecisionCache:
    """Two generations: a new entry or a used one is young; when the young are many, the old are forgotten."""

    def __init__(self, capacity: int) -> None:
        self._half = max(1, capacity // 2)
        self._young: dict[Hashable, Verdict] = {}
        self._old: dict[Hashable, Verdict] = {}

    def get(self, key: Hashable) -> Verdict | None:
        """The verdict under this key, if it is still remembered."""
        if (found := self._young.get(key)) is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: Hashable, verdict: Verdict) -> None:
        """Remember a verdict."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = verdict

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def values_key(context: Mapping[str, object], paths: Iterable[Path]) -> tuple[tuple[type, object], ...] | None:
    """The values at these paths, typed; None if one of them is too long to be kept."""
    found: list[tuple[type, object]] = []
    for path in paths:
        value = value_at(context, path)
        if isinstance(value, dict | list):
            value = msgspec.json.encode(value)
        if isinstance(value, str | bytes) and len(value) > MAX_VALUE:
            return None
        found.append((type(value), value))
    return tuple(found)


def value_at(context: Mapping[str, object], path: Path) -> object:
    """The value at a path, or `MISSING`."""
    value: object = context
    for name in path:
        if not isinstance(value, (dict, Mapping)) or name not in value:
            return MISSING
        value = value[name]
    return value


def project(context: Mapping[str, object], paths: Iterable[Path]) -> dict[str, object]:
    """The context cut down to these paths. A record on the way to an absent value stays, so that `has` can look in."""
    cut: dict[str, object] = {}
    for path in paths:
        if not path:
            return dict(context)
        _copy(context, cut, path)
    return cut


def _copy(source: Mapping[str, object], target: dict[str, object], path: Path) -> None:
    for name in path[:-1]:
        inner = source.get(name)
        if not isinstance(inner, (dict, Mapping)):
            return
        following = target.setdefault(name, {})
        assert isinstance(following, dict)
        source, target = inner, following
    if path[-1] in source:
        target[path[-1]] = source[path[-1]]
