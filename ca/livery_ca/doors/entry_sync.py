"""The exchange by which an agent learns its entries: everything at once when they fit, revisions and questions if not.

Owns: the order of messages of SyncAuthorizedEntries. Does not own: which entries those are, or who asks.

Invariants: the first request's mask holds for the whole stream; a page has at most `PAGE_SIZE` entries; an entry the
agent is not entitled to is never sent, whatever ids it asks for. The exchange is complete once everything at once was
sent, or the answer to a request for less than a page: agents ask page by page, so that was the last one. The end of a
stream says nothing, since an agent that is through and one that is gone look alike. A stream on which nothing is asked
is ended, and while it is open it holds references to its entries and no more.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from livery.wire import entry_api, types_api
from livery_ca.doors.messages import entry_form
from livery_ca.doors.refusals import InvalidArgument
from livery_ca.model import Entry

PAGE_SIZE = 500
PATIENCE = 60.0  # seconds for the agent's next message: it asks as soon as it has read

Requests = AsyncIterator[entry_api.SyncAuthorizedEntriesRequest]
Response = entry_api.SyncAuthorizedEntriesResponse
Check = Callable[[], Awaitable[None]]
Completed = Callable[[], None]


async def serve(
    requests: Requests, entries: Sequence[Entry], check: Check, completed: Completed, page_size: int = PAGE_SIZE
) -> AsyncIterator[Response]:
    """Answer the stream from `entries`, ordered by id. `check` is asked at each further request, and raises to end it.

    `completed` is called when the agent has been sent everything it lacked.
    """
    first = await _next(requests)
    if first is None:
        return
    mask = _initial_mask(first)
    if len(entries) <= page_size:
        yield Response(entries=[entry_form.write(entry, mask) for entry in entries])
        completed()
        return
    for page, more in _pages(entries, page_size):
        yield Response(entry_revisions=[_revision(entry) for entry in page], more=more)
    while (request := await _next(requests)) is not None:
        await check()
        wanted = [entry for each in sorted(set(request.ids)) if (entry := _find(entries, each)) is not None]
        for page, more in _pages(wanted, page_size):
            yield Response(entries=[entry_form.write(entry, mask) for entry in page], more=more)
        if len(request.ids) < page_size:
            completed()


async def _next(requests: Requests) -> entry_api.SyncAuthorizedEntriesRequest | None:
    """The agent's next message; None when it has no more."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await anext(requests, None)
    except TimeoutError as cause:
        raise InvalidArgument("failed to receive request from stream", why=f"none in {PATIENCE:g} s") from cause


def _find(entries: Sequence[Entry], entry_id: str) -> Entry | None:
    place = bisect_left(entries, entry_id, key=lambda entry: entry.id)
    return entries[place] if place < len(entries) and entries[place].id == entry_id else None


def _initial_mask(request: entry_api.SyncAuthorizedEntriesRequest) -> types_api.EntryMask | None:
    if request.ids:
        raise InvalidArgument("specifying IDs on initial request is not supported")
    if not request.HasField("output_mask"):
        return None
    if not request.output_mask.revision_number:
        raise InvalidArgument("revision number cannot be masked")
    return request.output_mask


def _pages(entries: Sequence[Entry], size: int) -> Iterator[tuple[Sequence[Entry], bool]]:
    """Pages and whether another follows; nothing at all is one empty page, since the agent waits for an answer."""
    for start in range(0, max(len(entries), 1), size):
        yield entries[start : start + size], start + size < len(entries)


def _revision(entry: Entry) -> entry_api.EntryRevision:
    return entry_api.EntryRevision(
        id=entry.id, revision_number=entry.revision_number, created_at=int(entry.created_at.timestamp())
    )
