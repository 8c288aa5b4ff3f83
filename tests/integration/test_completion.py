"""Completion against a CA, by a real bash: what is there can be completed, as its user types it."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from livery.wire import entry_api, types_api
from tests.integration.running_ca import RunningCa, an_entry, running_ca

BIN = Path(sys.executable).parent
TRIES = 5  # on a machine that may have much else to do


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[RunningCa]:
    async with running_ca(tmp_path) as running:
        yield running


async def completed(socket: str | None, *words: str) -> list[str]:
    """What bash offers for the last of these words, cut as bash cuts them; nothing may be said besides.

    Where the CA takes too long nothing is offered, and whoever wants it presses the key again: so do we.
    """
    script = f"""
        eval "$(livery completion bash)"
        COMP_WORDS=({" ".join(map(shlex.quote, words))})
        COMP_CWORD={len(words) - 1}
        _livery_completion livery
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": "/nonexistent"}
    if socket is not None:
        environment["LIVERY_CA_SOCKET"] = socket
    press = partial(subprocess.run, env=environment, capture_output=True, text=True, timeout=60, check=True)
    for _ in range(TRIES):
        done = await asyncio.to_thread(press, ["bash", "-c", script])
        assert done.stderr == ""
        if offered := done.stdout.split():
            break
    return offered


async def test_ids_of_entries_are_completed_but_for_those_already_named(ca: RunningCa) -> None:
    await ca.create(*(an_entry("/p", f"/{name}", id=name) for name in ("web-1", "web-2", "db-1")))
    assert await completed(ca.socket, "livery", "entry", "show", "") == ["db-1", "web-1", "web-2"]
    assert await completed(ca.socket, "livery", "entry", "update", "web") == ["web-1", "web-2"]
    assert await completed(ca.socket, "livery", "entry", "delete", "web-1", "w") == ["web-2"]
    named = ("livery", "entry", "show", "--ca-socket", *cut(ca.socket), "d")
    assert await completed(None, *named) == ["db-1"], "the socket that the line names, and no other"


def cut(text: str) -> Sequence[str]:
    """A word as bash has it in COMP_WORDS."""
    return text.replace(":", "\n:\n").split("\n")


@pytest.mark.parametrize(
    "words",
    [
        ("entry", "list", "--spiffe-id"),
        ("entry", "create", "--spiffe-id"),
        ("mint", "jwt"),
        ("mint", "x509"),
        ("can",),
        ("can", "spiffe", ":", "//example.org/web", "http", ":", "GET"),
    ],
)
async def test_spiffe_ids_are_completed_across_their_colon(ca: RunningCa, words: tuple[str, ...]) -> None:
    """Bash replaces what follows the colon, so that is what it is given; each ID once, whoever else has it."""
    await ca.create(an_entry("/p", "/web"), an_entry("/q", "/web"), an_entry("/p", "/db"))
    whole = ["spiffe://example.org/db", "spiffe://example.org/web"]
    assert await completed(ca.socket, "livery", *words, "") == whole
    assert await completed(ca.socket, "livery", *words, "spi") == whole
    rest = [each.removeprefix("spiffe:") for each in whole]
    assert await completed(ca.socket, "livery", *words, "spiffe", ":") == rest
    assert await completed(ca.socket, "livery", *words, "spiffe", ":", "//example.org/w") == rest[1:]


async def test_agents_are_completed_and_so_are_parents(ca: RunningCa) -> None:
    async with ca.joined() as agent:
        await ca.create(an_entry(agent.id, "/web"))
        for command in ("show", "ban", "evict"):
            assert await completed(ca.socket, "livery", "node", command, "") == [str(agent.id)]
        parents = sorted([str(agent.id), "spiffe://example.org/web"])
        assert await completed(ca.socket, "livery", "entry", "list", "--parent-id", "") == parents


async def test_more_entries_than_fit_a_page_are_all_offered(ca: RunningCa) -> None:
    await ca.create(*(an_entry("/p", f"/w{number}", id=f"e{number:04}") for number in range(501)))
    assert len(await completed(ca.socket, "livery", "entry", "show", "e")) == 501


class _Hostile(entry_api.EntryServicer):
    """A server that is not ours: ids that a shell would expand, and a second page that fails."""

    def ListEntries(self, request: entry_api.ListEntriesRequest, context: Any) -> entry_api.ListEntriesResponse:  # type: ignore[override]
        if request.page_token:
            context.abort(grpc.StatusCode.INTERNAL, "the disk is on fire")
        ids = ["fine", "*", "$(id)", "a b", "~", "`id`", "x\nplain,y", ""]
        entries = [types_api.Entry(id=each) for each in ids]
        return entry_api.ListEntriesResponse(entries=entries, next_page_token="2")


async def test_what_is_more_than_a_word_is_not_offered_and_a_failure_not_told(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    entry_api.add_EntryServicer_to_server(_Hostile(), server)
    server.add_insecure_port(f"unix:{tmp_path}/hostile.sock")
    server.start()
    try:
        assert await completed(f"unix:{tmp_path}/hostile.sock", "livery", "entry", "show", "") == ["fine"]
    finally:
        await asyncio.to_thread(server.stop(None).wait)
