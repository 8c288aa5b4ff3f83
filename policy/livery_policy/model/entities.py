"""The entities of one call, built from the two SPIFFE IDs themselves.

Owns: `EntityBook`, a bounded memory of (caller, callee) → entities, and the scope keys the slices are found by.
Does not own: policies; what selectors a workload has (they are given).

Invariants: every principal and resource has its trust domain and all its path prefixes as ancestors, because they are
read off its ID. An entity that is absent from Cedar's entities has no ancestors at all, and every `forbid` on a trust
domain or a prefix would be lost on it. Entities are parsed with the schema, or Cedar would not know the action groups.
The memory is bounded in what it holds, not in pairs alone: Cedar keeps every ancestor of every ancestor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from livery.identity import IdentityError, SpiffeId
from livery_policy import cedar
from livery_policy.model.calls import Unreadable
from livery_policy.model.decision import Reason
from livery_policy.model.vocabulary import NAMESPACE

MAX_SEGMENTS = 64  # Cedar closes over the ancestors: 1,000 prefixes would cost 100 ms
_USUAL = 64  # edges between ancestors in a pair of two usual IDs; two of 64 segments have 8,450, and take 1.4 MB
WORKLOAD = f"{NAMESPACE}::Workload"
SERVICE = f"{NAMESPACE}::Service"
ACTION = f"{NAMESPACE}::Action"
TRUST_DOMAIN = f"{NAMESPACE}::TrustDomain"
PATH_PREFIX = f"{NAMESPACE}::PathPrefix"

Uid = tuple[str, str]  # entity type, id


@dataclass(frozen=True, slots=True)
class Pair:
    """A caller and a callee: their SPIFFE IDs (as text that was parsed once), their ancestors (nearest first, the trust
    domain last), and Cedar's handle.
    """

    principal: str
    resource: str
    principal_ancestors: tuple[Uid, ...]
    resource_ancestors: tuple[Uid, ...]
    handle: cedar.Entities

    @property
    def weight(self) -> int:
        """How much memory it takes, in usual pairs (20 kB)."""
        edges = len(self.principal_ancestors) ** 2 + len(self.resource_ancestors) ** 2
        return 1 + edges // _USUAL


class EntityBook:
    """Entities by (caller, callee), least recently used ones forgotten first; `capacity` is in usual pairs."""

    def __init__(
        self,
        schema: cedar.Schema,
        *,
        capacity: int = 2048,
        selectors: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        version: int = 0,
    ) -> None:
        self._schema = schema
        self._capacity = capacity
        self._selectors = selectors
        self.version = version  # changes with the selectors; part of every cached decision's key
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._weight = 0

    def pair(self, principal: str, resource: str) -> Pair | Unreadable:
        """The two parties of a call, or which of them is nobody's SPIFFE ID."""
        key = (principal, resource)
        if (pair := self._pairs.pop(key, None)) is not None:
            self._pairs[key] = pair  # a dict keeps the order of insertion: the newest use stands last
            return pair
        made = self._make(principal, resource)
        if isinstance(made, Unreadable):
            return made
        self._pairs[key] = made
        self._weight += made.weight
        while self._weight > self._capacity and len(self._pairs) > 1:
            self._weight -= self._pairs.pop(next(iter(self._pairs))).weight
        return made

    def _make(self, principal: str, resource: str) -> Pair | Unreadable:
        caller = _party(principal)
        if not isinstance(caller, SpiffeId):
            return Unreadable(Reason.BAD_SUBJECT, f"the subject: {caller}")
        callee = _party(resource)
        if not isinstance(callee, SpiffeId):
            return Unreadable(Reason.BAD_RESOURCE, f"the resource: {callee}")
        above_caller, above_callee = ancestors(caller), ancestors(callee)
        entities = _prefixes(above_caller) | _prefixes(above_callee)
        workload: dict[str, object] = {"trust_domain": str(caller.trust_domain), "path": caller.path}
        workload["segments"] = caller.segments
        workload["selectors"] = self._selectors.get(principal, ())
        entities[WORKLOAD, principal] = _entity((WORKLOAD, principal), workload, above_caller)
        service = {"trust_domain": str(callee.trust_domain), "path": callee.path}
        entities[SERVICE, resource] = _entity((SERVICE, resource), service, above_callee)
        handle = cedar.entities(msgspec.json.encode(list(entities.values())).decode(), self._schema)
        return Pair(principal, resource, above_caller, above_callee, handle)


def ancestors(spiffe_id: SpiffeId) -> tuple[Uid, ...]:
    """Its path prefixes, its own path first (`/a/b` is under the prefix `/a/b`), then its trust domain."""
    segments, domain = spiffe_id.segments, spiffe_id.trust_domain
    found = [(PATH_PREFIX, f"{SpiffeId(domain)}/{'/'.join(segments[:n])}") for n in range(len(segments), 0, -1)]
    return (*found, (TRUST_DOMAIN, str(domain)))


def _party(text: str) -> SpiffeId | str:
    try:
        found = SpiffeId.parse(text)
    except IdentityError as e:
        return str(e)
    if found.is_root:
        return f"{text} names a trust domain, not a workload"
    if len(found.segments) > MAX_SEGMENTS:
        return f"its path has more than {MAX_SEGMENTS} segments"
    return found


def _prefixes(above: tuple[Uid, ...]) -> dict[Uid, dict[str, object]]:
    """Each ancestor with its own parent: the next one of the row."""
    return {uid: _entity(uid, {}, above[n + 1 : n + 2]) for n, uid in enumerate(above)}


def _entity(uid: Uid, attrs: Mapping[str, object], above: tuple[Uid, ...]) -> dict[str, object]:
    return {"uid": _uid(uid), "attrs": attrs, "parents": [_uid(parent) for parent in above[:1]]}


def _uid(uid: Uid) -> dict[str, str]:
    return {"type": uid[0], "id": uid[1]}
