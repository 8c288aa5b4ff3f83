"""The registration entries in memory: loaded once, then kept current from the store's change feed.

Owns: the index and how far it has followed the feed. Does not own: entitlement (a pure question asked of the index) or
the feed. Nodes are not held here: an agent's row is read at each of its calls, so that a ban is in force at once.

Invariant: an answer given after `catch_up` returned knows every change that was committed when it was called. Where the
feed has forgotten what happened since we looked, everything is loaded anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

import structlog

from livery.errors import LiveryError
from livery.identity import Selector, SpiffeId
from livery.runtime.clock import Clock
from livery_ca.entries.entitlement import authorized_entries, entitled_entries
from livery_ca.entries.index import EntryIndex
from livery_ca.model import Entry, EntryFilter, Listing, Page
from livery_ca.store.changes import ChangeKind, Since

_log = structlog.stdlib.get_logger(__name__)

LOAD_PAGE = 2000
RETRY_SECONDS = 1.0


class EntrySource(Protocol):
    """Where the entries are kept."""

    async def get(self, entry_id: str) -> Entry | None:
        """The entry with this id."""
        ...

    async def list(self, wanted: EntryFilter, page: Page) -> Listing[Entry]:
        """One page of the entries that pass the filter."""
        ...


class Feed(Protocol):
    """What has changed."""

    @property
    def latest(self) -> int:
        """The newest committed sequence number."""
        ...

    async def wait(self, after: int) -> int:
        """Return once there is something after `after`."""
        ...

    async def since(self, after: int, limit: int = 1000) -> Since:
        """The changes after `after`."""
        ...


class Catalog:
    """The entries, current."""

    def __init__(self, source: EntrySource, feed: Feed, clock: Clock) -> None:
        self._source = source
        self._feed = feed
        self._clock = clock
        self._index = EntryIndex()
        self._seen = -1
        self._following = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def position(self) -> int:
        """The change up to which every answer from now on knows all of them."""
        return self._seen

    async def authorized(self, agent: SpiffeId, selectors: Iterable[Selector], at: datetime) -> tuple[Entry, ...]:
        """The entries this agent is entitled to now, ordered by id."""
        await self.catch_up()
        return authorized_entries(self._index, agent, selectors, at)

    async def entitled(
        self, agent: SpiffeId, selectors: Iterable[Selector], wanted: Iterable[str], at: datetime
    ) -> dict[str, Entry]:
        """Those of the entries with these ids that this agent is entitled to now, by id."""
        await self.catch_up()
        return entitled_entries(self._index, agent, selectors, wanted, at)

    async def catch_up(self) -> None:
        """Apply every change committed so far; at no cost when there is none."""
        if self._seen >= self._feed.latest:
            return
        async with self._following:
            while self._seen < self._feed.latest:
                await self._step()

    async def follow(self) -> None:
        """Keep current until cancelled, so that the first question after a change need not wait for it."""
        while True:
            try:
                await self._feed.wait(self._seen)
                await self.catch_up()
            except LiveryError as error:  # the store is away: agents are told so; we try again
                _log.warning("entries are not current", why=str(error))
                await self._clock.sleep(RETRY_SECONDS)

    async def _step(self) -> None:
        if self._seen < 0:
            await self._load()
            return
        since = await self._feed.since(self._seen)
        if not since.complete:
            await self._load()
            return
        touched = dict.fromkeys(change.key for change in since.changes if change.kind is ChangeKind.ENTRY)
        entries = {entry_id: await self._source.get(entry_id) for entry_id in touched}
        for entry_id, entry in entries.items():
            if entry is None:
                self._index.remove(entry_id)
            else:
                self._index.put(entry)
        self._seen = since.changes[-1].seq if since.changes else self._feed.latest

    async def _load(self) -> None:
        """Read everything. What changes meanwhile is after `latest`, and the next step applies it, perhaps again."""
        latest = self._feed.latest
        index = EntryIndex()
        after = 0
        while True:
            listing = await self._source.list(EntryFilter(), Page(LOAD_PAGE, after))
            for entry in listing.items:
                index.put(entry)
            if listing.last_row is None:
                break
            after = listing.last_row
        self._index, self._seen = index, latest
