"""Which entries an agent may have, and what standing a caller's own entries give it.

Owns: the rule of entitlement. Does not own: who the caller is (`doors.guard.rights`) or what is signed for an entry
(`issuance`).

Invariants: pure; no entry, no identity; an expired entry entitles nobody, neither to itself nor to what is under it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from livery.identity import Selector, SpiffeId
from livery_ca.entries.index import EntryIndex, is_alias
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


def entitled_entries(
    index: EntryIndex, agent: SpiffeId, selectors: Iterable[Selector], wanted: Iterable[str], at: datetime
) -> dict[str, Entry]:
    """Those of `authorized_entries` that have the wanted ids, by id.

    Found from the other end, from each entry up through its parents: what it costs does not grow with the number of
    entries the agent has.
    """
    roots = {agent, *(a.spiffe_id for a in index.aliases(frozenset(selectors)) if not a.expired(at))}
    asked = (index.get(entry_id) for entry_id in wanted)
    return {
        entry.id: entry
        for entry in asked
        if entry is not None and not is_alias(entry) and not entry.expired(at) and _is_under(index, entry, roots, at)
    }


def _is_under(index: EntryIndex, entry: Entry, roots: Collection[SpiffeId], at: datetime) -> bool:
    """Whether one of the roots is above the entry, by way of entries that have not expired."""
    parents = [entry.parent_id]
    seen = set(parents)
    while parents:
        parent = parents.pop()
        if parent in roots:
            return True
        above = {each.parent_id for each in index.of(parent) if not each.expired(at)} - seen
        seen |= above
        parents += above
    return False


def is_admin(own_entries: Iterable[Entry], at: datetime) -> bool:
    """Whether one of the caller's own entries makes it an administrator."""
    return any(entry.admin and not entry.expired(at) for entry in own_entries)


def is_downstream(own_entries: Iterable[Entry], at: datetime) -> bool:
    """Whether one of the caller's own entries makes it a downstream authority."""
    return any(entry.downstream and not entry.expired(at) for entry in own_entries)
