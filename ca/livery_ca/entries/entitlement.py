"""Which entries an agent may have, and what standing a caller's own entries give it.

Owns: the rule of entitlement. Does not own: who the caller is (`doors.rights`) or what is signed for an entry
(`issuance`).

Invariants: pure; no entry, no identity; an expired entry entitles nobody, neither to itself nor to what is under it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from livery.identity import Selector, SpiffeId
from livery_ca.entries.index import EntryIndex
from livery_ca.model import Entry


def authorized_entries(
    index: EntryIndex, agent: SpiffeId, selectors: Iterable[Selector], at: datetime
) -> tuple[Entry, ...]:
    """The entries an agent is entitled to, ordered by id.

    The transitive closure over parents: entries whose parent is the agent, or a node alias that the agent's selectors
    match, or an entry already found. Aliases themselves are not among them.
    """
    found: dict[str, Entry] = {}
    parents = [agent, *(a.spiffe_id for a in index.aliases(frozenset(selectors)) if not a.expired(at))]
    seen = set(parents)
    while parents:
        for entry in index.children(parents.pop()):
            if entry.expired(at):
                continue
            found[entry.id] = entry
            if entry.spiffe_id not in seen:
                seen.add(entry.spiffe_id)
                parents.append(entry.spiffe_id)
    return tuple(found[each] for each in sorted(found))


def choose(entries: Iterable[Entry], wanted: Collection[str]) -> dict[str, Entry]:
    """Those of the entitled entries that are asked for, by id."""
    asked = frozenset(wanted)
    return {entry.id: entry for entry in entries if entry.id in asked}


def is_admin(own_entries: Iterable[Entry], at: datetime) -> bool:
    """Whether one of the caller's own entries makes it an administrator."""
    return any(entry.admin and not entry.expired(at) for entry in own_entries)


def is_downstream(own_entries: Iterable[Entry], at: datetime) -> bool:
    """Whether one of the caller's own entries makes it a downstream authority."""
    return any(entry.downstream and not entry.expired(at) for entry in own_entries)
