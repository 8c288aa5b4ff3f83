"""All registration entries, found by id, by parent, by SPIFFE ID and, for node aliases, by selector.

Owns: the index and nothing else: no store, no time, no decision. `entitlement` asks it, `catalog` keeps it current.

Invariant: an entry is in every map it belongs to or in none; a map holds no empty set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from livery.identity import Selector, SpiffeId
from livery_ca.model import Entry

SERVER_PATH = "/spire/server"

Key = TypeVar("Key")


class EntryIndex:
    """Entries under every key by which entitlement looks for them. Mutable, and used from one thread."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_id: dict[str, Entry] = {}
        self._by_parent: dict[SpiffeId, set[str]] = {}
        self._by_spiffe_id: dict[SpiffeId, set[str]] = {}
        self._aliases: dict[Selector, set[str]] = {}
        for entry in entries:
            self.put(entry)

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, entry_id: str) -> Entry | None:
        """The entry with this id."""
        return self._by_id.get(entry_id)

    def put(self, entry: Entry) -> None:
        """Add the entry, or replace the one with its id."""
        self.remove(entry.id)
        self._by_id[entry.id] = entry
        if is_alias(entry):
            for selector in entry.selectors:
                self._aliases.setdefault(selector, set()).add(entry.id)
        else:
            self._by_parent.setdefault(entry.parent_id, set()).add(entry.id)
            self._by_spiffe_id.setdefault(entry.spiffe_id, set()).add(entry.id)

    def remove(self, entry_id: str) -> None:
        """Forget the entry; nothing happens when there is none."""
        entry = self._by_id.pop(entry_id, None)
        if entry is None:
            return
        if is_alias(entry):
            for selector in entry.selectors:
                _discard(self._aliases, selector, entry_id)
        else:
            _discard(self._by_parent, entry.parent_id, entry_id)
            _discard(self._by_spiffe_id, entry.spiffe_id, entry_id)

    def children(self, parent: SpiffeId) -> Iterator[Entry]:
        """The entries under this parent, node aliases left out."""
        for entry_id in self._by_parent.get(parent, ()):
            yield self._by_id[entry_id]

    def of(self, spiffe_id: SpiffeId) -> Iterator[Entry]:
        """The entries for this SPIFFE ID, node aliases left out."""
        for entry_id in self._by_spiffe_id.get(spiffe_id, ()):
            yield self._by_id[entry_id]

    def aliases(self, selectors: frozenset[Selector]) -> Iterator[Entry]:
        """The node aliases whose selectors all lie within `selectors`."""
        touched = {entry_id for selector in selectors for entry_id in self._aliases.get(selector, ())}
        for entry_id in touched:
            entry = self._by_id[entry_id]
            if entry.selector_set <= selectors:
                yield entry


def is_alias(entry: Entry) -> bool:
    """Whether the entry names a group of nodes instead of a workload: its parent is the server itself."""
    return entry.parent_id.path == SERVER_PATH


def _discard(table: dict[Key, set[str]], key: Key, entry_id: str) -> None:
    held = table.get(key, set())
    held.discard(entry_id)
    if not held:
        table.pop(key, None)
