"""Which entries this node is authorized for: the conversation `SyncAuthorizedEntries`.

Owns: the message order (everything at once when there is little; otherwise revisions in pages, then the entries whose
revision we do not have), and turning an entry of the wire into ours. Does not own: connections and time-outs
(`calls`), or how the end of a call is told (`conversation`).

Invariant: one entry that we cannot read is left out and said so; it never keeps the others from arriving.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from livery.identity import IdentityError, TrustDomain
from livery.runtime.logging import get_logger
from livery.runtime.spire_types import selector_from_wire, spiffe_id_from_wire
from livery.wire import entry_api, types_api
from livery_agent.errors import CaAnswerUnusable
from livery_agent.identities.entry import Entry, with_served_hint
from livery_agent.upstream.conversation import Conversation

log = get_logger(__name__)

# What SPIRE's agents ask for. What only shapes the certificate (TTLs, DNS names) stays at the CA.
MASK = types_api.EntryMask(
    spiffe_id=True,
    selectors=True,
    federates_with=True,
    admin=True,
    downstream=True,
    revision_number=True,
    store_svid=True,
    hint=True,
    additional_attributes=True,
    created_at=True,
)

Talk = Conversation[entry_api.SyncAuthorizedEntriesRequest, entry_api.SyncAuthorizedEntriesResponse]


async def converse(talk: Talk, known: Mapping[str, Entry]) -> tuple[Entry, ...]:
    """All entries this node is authorized for; those of `known` that have not changed are not sent again."""
    await talk.say(entry_api.SyncAuthorizedEntriesRequest(output_mask=MASK))
    first = await _next(talk)
    if not first.entry_revisions:
        # 1. Few entries: they are all in the first message, or there are none.
        await talk.finish_saying()
        return _read_all(first.entries)
    # 2. Many: every page of revisions first.
    revisions = {r.id: r for r in first.entry_revisions}
    page = len(first.entry_revisions)
    async for message in _pages(talk, more=first.more):
        revisions.update((r.id, r) for r in message.entry_revisions)
    kept = {id_: known[id_] for id_, r in revisions.items() if id_ in known and _is_current(known[id_], r)}
    # 3. Then the entries we lack, asked for by the CA's own page size, in order.
    wanted = sorted(revisions.keys() - kept.keys())
    fetched: list[Entry] = []
    # The last question is for less than a page, if need be for nothing: by that the CA knows that we have them all.
    for start in range(0, len(wanted) + 1, page):
        await talk.say(entry_api.SyncAuthorizedEntriesRequest(ids=wanted[start : start + page]))
        async for message in _pages(talk, more=True):
            fetched.extend(_read_all(message.entries))
    await talk.finish_saying()
    return (*kept.values(), *fetched)


async def _next(talk: Talk) -> entry_api.SyncAuthorizedEntriesResponse:
    message = await talk.hear()
    if message is None:
        raise CaAnswerUnusable("the CA ended the synchronisation early")
    return message


async def _pages(talk: Talk, *, more: bool) -> AsyncIterator[entry_api.SyncAuthorizedEntriesResponse]:
    while more:
        message = await _next(talk)
        yield message
        more = message.more


def _is_current(entry: Entry, revision: entry_api.EntryRevision) -> bool:
    # created_at is 0 at servers that do not know it; it tells an entry from a later one with its ID.
    born = not revision.created_at or revision.created_at == entry.created_at
    return born and revision.revision_number == entry.revision


def _read_all(messages: Sequence[types_api.Entry]) -> tuple[Entry, ...]:
    return tuple(entry for entry in map(_read, messages) if entry is not None)


def _read(message: types_api.Entry) -> Entry | None:
    try:
        return entry_from_wire(message)
    except IdentityError as error:
        log.warning("an entry cannot be used", entry_id=message.id, error=str(error))
        return None


def entry_from_wire(message: types_api.Entry) -> Entry:
    """Our value of an entry; raises `IdentityError` if it names something that is no identity."""
    entry = Entry(
        id=message.id,
        spiffe_id=spiffe_id_from_wire(message.spiffe_id),
        selectors=frozenset(selector_from_wire(selector) for selector in message.selectors),
        revision=message.revision_number,
        created_at=message.created_at,
        federates_with=tuple(TrustDomain.parse(name) for name in message.federates_with),
        hint=message.hint,
        admin=message.admin,
        downstream=message.downstream,
        store_svid=message.store_svid,
    )
    return with_served_hint(entry)
