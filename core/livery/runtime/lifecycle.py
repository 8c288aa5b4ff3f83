"""A role's life as a process: its event loop, signals, its leash, systemd, and an end within bounds.

Owns: when a role is asked to stop and how long it may take. Does not own: what a role does (a coroutine that runs until
it is cancelled and then cleans up), nor exit codes and messages (the CLI maps errors once).

Invariants: the first signal, or the end of the leash, asks (by cancelling); a second signal, or the end of `grace`,
cuts. A role that cleans up in time ended well.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import ClassVar

import uvloop

from livery.errors import Kind, LiveryError
from livery.runtime.descriptors import raise_file_limit
from livery.runtime.logging import get_logger


class DidNotStop(LiveryError):
    """The role was asked to stop, and was cut off before it had cleaned up."""

    code: ClassVar[str] = "did_not_stop"
    kind: ClassVar[Kind] = Kind.INTERNAL


def run_role(work: Coroutine[object, object, None], *, grace: float = 10.0, leash: int | None = None) -> None:
    """Run a role until it ends, on uvloop, with as many file descriptors as there may be.

    `leash` is a descriptor that somebody holds the other end of: when that closes, the role stops, however its holder
    died. Returns when the role ended by itself or cleaned up after it was asked to stop; raises what it raises, or
    `DidNotStop`.
    """
    raise_file_limit()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        runner.run(_live(work, grace, leash))
    except DidNotStop:
        runner.get_loop().close()  # not the runner, which would wait for the very task that does not end
        raise
    except BaseException:
        runner.close()
        raise
    runner.close()


async def all_at_once(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Do all of this until cancelled. What ends one of them ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for each in work:
                tasks.create_task(each)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Send a line ("READY=1") to systemd, if it started us (sd_notify(3)); what it does not take is lost."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract name
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)


async def _live(work: Coroutine[object, object, None], grace: float, leash: int | None) -> None:
    role = asyncio.create_task(work)
    asked, cut = asyncio.Event(), asyncio.Event()

    def hear(why: str) -> None:
        get_logger("livery.lifecycle").info("stopping", why=why, at_once=asked.is_set())
        (cut if asked.is_set() else asked).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear, number.name)
    if leash is not None:
        threading.Thread(target=_hold, args=(leash, loop, asked), daemon=True, name="leash").start()
    if not await _first(role, asked):
        role.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await _first(role, cut)
        if not role.done():
            given = "a second signal cut it off" if cut.is_set() else f"it was asked to, and given {grace:g} s"
            raise DidNotStop("the role did not stop in time", why=given)
    if not role.cancelled():
        role.result()


async def _first(role: asyncio.Task[None], event: asyncio.Event) -> bool:
    """Wait for either; True if the role has ended."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({role, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return role.done()


def _hold(leash: int, loop: asyncio.AbstractEventLoop, asked: asyncio.Event) -> None:
    with suppress(OSError):
        while os.read(leash, 64):
            pass
    with suppress(RuntimeError):  # the loop has closed: there is nobody left to stop
        loop.call_soon_threadsafe(asked.set)
