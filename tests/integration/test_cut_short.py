"""Whoever is cancelled as a door, a dialer or an HTTP server opens or closes leaves no socket behind.

In whichever turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from livery.runtime.clock import SystemClock
from livery.runtime.front_door import FrontDoor
from livery.runtime.http import HttpServer
from livery.runtime.metrics import Metrics
from livery.runtime.transport.listen import UnixListen
from tests.fakes.audit import RecordingAudit
from tests.integration.doors import FEW, PATIENCE, EchoService, dialer_to, eventually, real_ca

TURNS = range(14)


def sockets_of(folder: Path) -> list[str]:
    """The unix sockets that are open under names in this folder, whether or not the names still are."""
    rows = Path("/proc/net/unix").read_text("ascii").splitlines()
    return [row for row in rows if row.rpartition(" ")[2].startswith(f"{folder}/")]


async def cut(work: Coroutine[Any, Any, Any], turns: int) -> None:
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(PATIENCE):
        with suppress(asyncio.CancelledError):
            await task


def a_dialer(tmp_path: Path) -> Any:
    return dialer_to("127.0.0.1:1", None, real_ca().bundle(), run_dir=tmp_path)


def a_door(tmp_path: Path) -> FrontDoor:
    return FrontDoor(
        UnixListen(tmp_path / "door.sock"),
        services=[EchoService().add_to],
        run_dir=tmp_path / "run",
        clock=SystemClock(),
        audit=RecordingAudit(),
        metrics=Metrics(),
        limits=FEW,
    )


@pytest.mark.parametrize("turns", TURNS)
async def test_a_dialer_whose_start_is_cut_short_listens_no_more(tmp_path: Path, turns: int):
    dialer = a_dialer(tmp_path)
    await cut(dialer.start(), turns)
    await dialer.close()  # it may have been done
    assert sockets_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("turns", TURNS)
async def test_a_dialer_whose_close_is_cut_short_is_closed_all_the_same(tmp_path: Path, turns: int):
    dialer = a_dialer(tmp_path)
    await dialer.start()
    assert len(sockets_of(tmp_path)) == 1
    await cut(dialer.close(), turns + 1)
    assert sockets_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("turns", TURNS)
async def test_a_door_whose_start_is_cut_short_listens_no_more(tmp_path: Path, turns: int):
    """Neither where clients connect, nor behind it, where grpc does."""
    door = a_door(tmp_path)
    await cut(door.start(), turns)
    await door.stop(0)
    await eventually(lambda: sockets_of(tmp_path) == [])  # grpc closes its own a moment after it has stopped
    assert list((tmp_path / "run").iterdir()) == [] if (tmp_path / "run").exists() else True


@pytest.mark.parametrize("turns", TURNS)
async def test_a_door_whose_stop_is_cut_short_is_closed_all_the_same(tmp_path: Path, turns: int):
    door = a_door(tmp_path)
    await door.start()
    assert len(sockets_of(tmp_path)) == 2
    await cut(door.stop(0), turns + 1)
    await eventually(lambda: sockets_of(tmp_path) == [])
    assert list((tmp_path / "run").iterdir()) == []


async def an_application(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    for word in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{word}.complete"})


def a_server(tmp_path: Path) -> HttpServer:
    listen = UnixListen(tmp_path / "http.sock")
    return HttpServer(an_application, listen, clock=SystemClock(), audit=RecordingAudit(), metrics=Metrics())


def watched() -> set[int]:
    """The descriptors that the loop watches. One that was closed in its back meets whoever gets its number next."""
    return set(cast("Any", asyncio.get_running_loop())._selector.get_map())


@pytest.mark.parametrize("turns", TURNS)
async def test_an_http_server_whose_start_is_cut_short_listens_no_more(tmp_path: Path, turns: int):
    before = watched()
    server = a_server(tmp_path)
    await cut(server.start(), turns)
    await server.stop(0)
    assert sockets_of(tmp_path) == []
    assert watched() == before


@pytest.mark.parametrize("turns", TURNS)
async def test_an_http_server_whose_stop_is_cut_short_is_closed_all_the_same(tmp_path: Path, turns: int):
    before = watched()
    server = a_server(tmp_path)
    await server.start()
    await cut(server.stop(0), turns + 1)
    assert sockets_of(tmp_path) == []
    assert watched() == before
