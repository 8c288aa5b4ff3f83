"""The exchange by which an agent learns its entries, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from livery.wire import entry_api, types_api
from livery_ca.doors.entry_sync import serve
from livery_ca.doors.refusals import Denied, InvalidArgument
from livery_ca.model import Entry
from tests.unit.ca.doors.values import an_entry

Request = entry_api.SyncAuthorizedEntriesRequest
MASK = types_api.EntryMask(revision_number=True)


async def sending(*requests: Request) -> AsyncIterator[Request]:
    for request in requests:
        yield request


async def fine() -> None:
    """The agent's standing is as it was."""


async def answers(entries: list[Entry], *requests: Request, check=fine, page_size: int = 3) -> list:
    return [each async for each in serve(sending(*requests), entries, check, lambda: None, page_size)]


def entries(count: int) -> list[Entry]:
    return [an_entry(f"e{number:03}", "/p", f"/w{number}", revision_number=number) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_entries_that_fit_a_page_come_whole_and_the_stream_ends(count: int) -> None:
    later = Request(ids=["e000"])
    (answer,) = await answers(entries(count), Request(output_mask=MASK), later)
    assert [each.id for each in answer.entries] == [f"e{number:03}" for number in range(count)]
    assert not answer.more
    assert not answer.entry_revisions


async def test_more_entries_come_as_pages_of_revisions() -> None:
    first, second, third = await answers(entries(7), Request(output_mask=MASK))
    assert [len(each.entry_revisions) for each in (first, second, third)] == [3, 3, 1]
    assert [each.more for each in (first, second, third)] == [True, True, False]
    revision = second.entry_revisions[1]
    assert (revision.id, revision.revision_number) == ("e004", 4)
    assert revision.created_at > 0
    assert not first.entries


async def test_a_page_that_is_just_full_is_not_followed_by_an_empty_one() -> None:
    answer = await answers(entries(6), Request(output_mask=MASK))
    assert [(len(each.entry_revisions), each.more) for each in answer] == [(3, True), (3, False)]


async def test_entries_asked_for_come_in_pages_and_each_request_is_answered_by_itself() -> None:
    ask = Request(output_mask=MASK), Request(ids=["e006", "e000", "e001", "e005"]), Request(ids=["e002"])
    replies = (await answers(entries(7), *ask))[3:]
    assert [[each.id for each in reply.entries] for reply in replies] == [["e000", "e001", "e005"], ["e006"], ["e002"]]
    assert [reply.more for reply in replies] == [True, False, False]


async def test_an_agent_never_gets_an_entry_that_is_not_its_own_by_asking() -> None:
    replies = await answers(entries(4), Request(output_mask=MASK), Request(ids=["stranger", "e001", "e001"]))
    assert [each.id for each in replies[-1].entries] == ["e001"]


async def test_whatever_is_asked_for_what_is_there_is_found_and_nothing_else() -> None:
    known = entries(5)
    for asked in ("", "e", "e0000", "e0021", "f", "e002 "):
        replies = await answers(known, Request(output_mask=MASK), Request(ids=[asked]))
        assert not replies[-1].entries, asked
    for entry in known:
        replies = await answers(known, Request(output_mask=MASK), Request(ids=[entry.id]))
        assert [each.id for each in replies[-1].entries] == [entry.id]


@pytest.mark.parametrize("said", [[], [Request(output_mask=MASK)], [Request(output_mask=MASK), Request(ids=["e001"])]])
async def test_a_stream_on_which_nothing_is_asked_is_ended(
    said: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def falling_silent() -> AsyncIterator[Request]:
        for request in said:
            yield request
        await asyncio.Event().wait()

    monkeypatch.setattr("livery_ca.doors.entry_sync.PATIENCE", 0.01)
    with pytest.raises(InvalidArgument, match="failed to receive request from stream"):
        async for _ in serve(falling_silent(), entries(4), fine, lambda: None, 3):
            pass


async def test_asking_for_nothing_is_answered_with_nothing() -> None:
    replies = await answers(entries(4), Request(output_mask=MASK), Request())
    assert (len(replies[-1].entries), replies[-1].more) == (0, False)


async def test_the_first_mask_holds_for_the_whole_stream() -> None:
    first = Request(output_mask=types_api.EntryMask(revision_number=True, hint=True))
    later = Request(ids=["e001"], output_mask=types_api.EntryMask(spiffe_id=True, revision_number=True))
    replies = await answers(entries(4), first, later)
    assert not replies[-1].entries[0].HasField("spiffe_id")
    assert replies[-1].entries[0].revision_number == 1


async def test_without_a_mask_everything_is_shown() -> None:
    (answer,) = await answers(entries(1), Request())
    assert answer.entries[0].HasField("spiffe_id")


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(ids=["e000"]), "specifying IDs on initial request is not supported"),
        (Request(output_mask=types_api.EntryMask(hint=True)), "revision number cannot be masked"),
    ],
)
async def test_a_wrong_first_request_is_refused_in_spires_words(request_: Request, text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await answers(entries(1), request_)
    assert str(refused.value) == text


async def test_a_stream_that_ends_before_it_began_is_answered_with_nothing() -> None:
    assert await answers(entries(1)) == []


@pytest.mark.parametrize(
    ("count", "asked", "times"),
    [
        (0, [], 1),
        (3, [], 1),
        (7, [], 0),
        (7, [3], 0),
        (7, [3, 3], 0),
        (7, [3, 1], 1),
        (7, [0], 1),
    ],
)
async def test_an_exchange_is_complete_after_everything_or_a_question_for_less_than_a_page(
    count: int, asked: list[int], times: int
) -> None:
    """A page has 3. That the stream ends is no sign: it ends as well when the agent is gone."""
    questions = [Request(ids=[f"e{number:03}" for number in range(size)]) for size in asked]
    completed: list[int] = []
    sent: list[entry_api.SyncAuthorizedEntriesResponse] = []
    stream = serve(
        sending(Request(output_mask=MASK), *questions), entries(count), fine, lambda: completed.append(len(sent)), 3
    )
    async for answer in stream:
        sent.append(answer)
    assert completed == [len(sent)] * times, "after all was sent, not before"


async def test_a_stream_that_ends_before_it_began_completes_nothing() -> None:
    completed: list[bool] = []
    assert [each async for each in serve(sending(), entries(1), fine, lambda: completed.append(True), 3)] == []
    assert completed == []


async def test_an_agent_banned_while_its_stream_is_open_gets_nothing_more() -> None:
    async def banned() -> None:
        raise Denied("authorization denied")

    stream = serve(sending(Request(output_mask=MASK), Request(ids=["e001"])), entries(4), banned, lambda: None, 3)
    assert len((await anext(stream)).entry_revisions) == 3
    await anext(stream)
    with pytest.raises(Denied):
        await anext(stream)
