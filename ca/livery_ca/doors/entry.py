"""The Entry service: registration entries for administrators, and each agent's share of them.

Owns: `spire.api.server.entry.v1.Entry`, all of it. Does not own: entitlement (`entries`), single changes
(`entry_changes`), the wire's form of an entry (`entry_form`), the paged exchange with agents (`entry_sync`).

Invariant: items of a batch are independent; each has a status, in the order of the request.
"""

# ruff: noqa: N802, ARG002 - methods and parameters are the wire's
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import structlog
from grpc.aio import ServicerContext

from livery.identity import TrustDomain, VerifiedX509Svid
from livery.runtime.clock import Clock
from livery.wire import entry_api, types_api
from livery_ca.certificates.profile import MIN_LIFETIME
from livery_ca.doors.entry_changes import EntryChanges
from livery_ca.doors.entry_sync import serve
from livery_ca.doors.guard.gate import Gate, admission_of
from livery_ca.doors.messages import entry_filter, entry_form, paging
from livery_ca.doors.messages.presence import given
from livery_ca.doors.refusals import Failed, InvalidArgument, Missing, failing
from livery_ca.entries.catalog import Catalog
from livery_ca.entries.deliveries import Deliveries
from livery_ca.entries.validation import unfound_selectors, weak_selectors
from livery_ca.model import Entry
from livery_ca.store.entries import Entries

_log = structlog.stdlib.get_logger(__name__)

Context = ServicerContext[Any, Any]
Mask = types_api.EntryMask
Result = TypeVar("Result")

WARNING_KEY = "livery-warning"
_SYNC = "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries"
_NAMED = 3  # entries of a batch that a warning names
_SHOWN = 48  # characters of each: gRPC's clients fail a call whose trailers are over 8 KiB in all
_TOGETHER = 64  # items of a batch handed to the store at a time, which commits them as one group


@dataclass(frozen=True, slots=True)
class EntryDoor(entry_api.EntryServicer):
    """Answers for the entries."""

    ours: TrustDomain
    entries: Entries
    changes: EntryChanges
    catalog: Catalog
    deliveries: Deliveries
    gate: Gate
    clock: Clock

    async def CountEntries(
        self, request: entry_api.CountEntriesRequest, context: Context
    ) -> entry_api.CountEntriesResponse:
        """How many entries pass the filter."""
        wanted = entry_filter.read(given(request, "filter", entry_api.CountEntriesRequest.Filter), self.ours)
        with failing("failed to count entries"):
            return entry_api.CountEntriesResponse(count=await self.entries.count(wanted))

    async def ListEntries(
        self, request: entry_api.ListEntriesRequest, context: Context
    ) -> entry_api.ListEntriesResponse:
        """The entries that pass the filter, in pages."""
        page = paging.read_page(request.page_size, request.page_token)
        wanted = entry_filter.read(given(request, "filter", entry_api.ListEntriesRequest.Filter), self.ours)
        with failing("failed to list entries"):
            listing = await self.entries.list(wanted, page)
        mask = given(request, "output_mask", Mask)
        found = [entry_form.write(entry, mask) for entry in listing.items]
        return entry_api.ListEntriesResponse(entries=found, next_page_token=paging.next_token(page, listing))

    async def GetEntry(self, request: entry_api.GetEntryRequest, context: Context) -> types_api.Entry:
        """One entry."""
        if not request.id:
            raise InvalidArgument("missing ID")
        with failing("failed to fetch entry"):
            entry = await self.entries.get(request.id)
        if entry is None:
            raise Missing("entry not found")
        return entry_form.write(entry, given(request, "output_mask", Mask))

    async def BatchCreateEntry(
        self, request: entry_api.BatchCreateEntryRequest, context: Context
    ) -> entry_api.BatchCreateEntryResponse:
        """Add entries."""
        shown, asked_by = given(request, "output_mask", Mask), admission_of(context).asked_by
        results = await _batch(self.changes.create(each, shown, asked_by) for each in request.entries)
        made = [each for each, result in zip(request.entries, results, strict=True) if result.status.code == 0]
        _warn(context, made, entry_form.ALL_FIELDS)
        return entry_api.BatchCreateEntryResponse(results=results)

    async def BatchUpdateEntry(
        self, request: entry_api.BatchUpdateEntryRequest, context: Context
    ) -> entry_api.BatchUpdateEntryResponse:
        """Replace the fields of the input mask; without one, all of them."""
        mask = given(request, "input_mask", Mask) or entry_form.ALL_FIELDS
        shown, asked_by = given(request, "output_mask", Mask), admission_of(context).asked_by
        results = await _batch(self.changes.update(each, mask, shown, asked_by) for each in request.entries)
        made = [each for each, result in zip(request.entries, results, strict=True) if result.status.code == 0]
        _warn(context, made, mask)
        return entry_api.BatchUpdateEntryResponse(results=results)

    async def BatchDeleteEntry(
        self, request: entry_api.BatchDeleteEntryRequest, context: Context
    ) -> entry_api.BatchDeleteEntryResponse:
        """Remove entries."""
        asked_by = admission_of(context).asked_by
        results = await _batch(self.changes.delete(entry_id, asked_by) for entry_id in request.ids)
        return entry_api.BatchDeleteEntryResponse(results=results)

    async def GetAuthorizedEntries(  # type: ignore[override]  # its one answer; the front door lets it go on after that
        self, request: entry_api.GetAuthorizedEntriesRequest, context: Context
    ) -> AsyncIterator[entry_api.GetAuthorizedEntriesResponse]:
        """Everything the calling agent is entitled to, in one message."""
        mask = given(request, "output_mask", Mask)
        position, entries = await self._entitled(context)
        yield entry_api.GetAuthorizedEntriesResponse(entries=[entry_form.write(entry, mask) for entry in entries])
        self._note(admission_of(context).caller.identity, position)  # the answer was sent, not only made

    async def SyncAuthorizedEntries(
        self, request_iterator: AsyncIterator[entry_api.SyncAuthorizedEntriesRequest], context: Context
    ) -> AsyncIterator[entry_api.SyncAuthorizedEntriesResponse]:
        """The same in pages: revisions first, then the entries asked for."""
        caller = admission_of(context).caller

        async def check() -> None:
            await self.gate.admit(_SYNC, caller)

        position, entries = await self._entitled(context)
        async for response in serve(request_iterator, entries, check, lambda: self._note(caller.identity, position)):
            yield response

    async def _entitled(self, context: Context) -> tuple[int, tuple[Entry, ...]]:
        """The calling agent's entries, and the change up to which they know all of them."""
        node = admission_of(context).node
        if node is None:
            raise Failed("caller ID missing from request context")
        with failing("failed to fetch entries"):
            await self.catalog.catch_up()
            position = self.catalog.position  # read first: what is added to the entries from here on is not claimed
            return position, await self.catalog.authorized(node.id, node.selectors, self.clock.now())

    def _note(self, svid: VerifiedX509Svid | None, position: int) -> None:
        if svid is not None:
            self.deliveries.note(svid, position, self.clock.now())


async def _batch(items: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Carry out the items in their order, many per commit of the store; none is begun before its turn."""
    waiting = iter(items)
    results: list[Result] = []
    while some := list(islice(waiting, _TOGETHER)):
        results += await asyncio.gather(*some)
    return results


def _warn(context: Context, entries: Sequence[types_api.Entry], mask: Mask) -> None:
    """Say what is doubtful in what was just done. SPIRE's messages have no place for it, so it rides in the trailer:
    each kind of doubt once, and of several entries the first three that it is about.
    """
    doubtful: dict[str, list[str]] = {}
    for entry in entries:
        for doubt in _doubts(entry, mask):
            _log.warning("doubtful entry", entry=entry.id, spiffe_path=entry.spiffe_id.path, why=doubt)
            doubtful.setdefault(doubt, []).append(entry.spiffe_id.path)
    if doubtful:
        context.set_trailing_metadata(tuple((WARNING_KEY, _told(doubt, of)) for doubt, of in doubtful.items()))


def _doubts(entry: types_api.Entry, mask: Mask) -> Iterator[str]:
    if mask.selectors:
        yield from filter(None, (weak_selectors(entry.selectors), unfound_selectors(entry.selectors)))
    shortest = int(MIN_LIFETIME.total_seconds())
    for name in ("x509_svid_ttl", "jwt_svid_ttl"):
        if getattr(mask, name) and 0 < getattr(entry, name) < shortest:
            yield f"{name} is under {shortest} s, and nothing so short is signed"


def _told(doubt: str, paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    named = ", ".join(path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..." for path in paths[:_NAMED])
    return doubt if len(paths) == 1 else f"{doubt} ({named}{more})"
