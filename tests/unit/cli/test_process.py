"""The life of one child of `livery up`: its first word, its end, its return, and its end for good."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from livery.runtime.clock import SystemClock
from livery.runtime.files import FileNotWritten
from livery_cli.up import process as module
from livery_cli.up.process import Command, Process, Ready, RoleFailed, Watcher

# Each is called with `--ready-fd N`, as every child is; its leash is its standard input.
SAY = """
import os, sys
def say(text):
    os.write(int(sys.argv[2]), text.encode())
    os.close(int(sys.argv[2]))
"""
READY = SAY + """say('{"address": "here"}\\n')\n"""
LEASHED = READY + "sys.stdin.read()"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY + "sys.stdin.read()"
REFUSING = SAY + """say('{"error": {"what": "no", "why": "because", "fix": "do"}}\\n'); sys.exit(4)"""
SILENT = "import sys; sys.exit(7)"
# Its last lines fill the pipe, and it is gone as soon as they are in it.
LAST_LINES = 400
TALKATIVE = (
    """
import os, signal, sys
def last(*_):
    os.write(1, b"".join(b"%0100d\\n" % number for number in range(400)))
    os._exit(0)
signal.signal(signal.SIGTERM, last)
"""
    + LEASHED
)


class Seen:
    """What a supervisor is told; `back` is set at each return."""

    def __init__(self) -> None:
        self.deaths: list[tuple[str, str]] = []
        self.back = asyncio.Event()

    def watcher(self) -> Watcher:
        return Watcher(died=lambda name, why: self.deaths.append((name, why)), back=self.returned)

    def returned(self, name: str, ready: Ready) -> None:
        self.back.set()


def child(tmp_path: Path, program: str, seen: Seen) -> Process:
    command = Command("ca", lambda: [sys.executable, "-c", program], tmp_path / "ca.log", os.geteuid())
    return Process(command, seen.watcher(), SystemClock())


async def test_it_is_ready_when_it_says_so_and_ends_when_it_is_told(tmp_path: Path) -> None:
    seen = Seen()
    process = child(tmp_path, LEASHED, seen)
    assert await process.start() == {"address": "here"}
    assert process.pid > 0
    await process.stop()
    assert (process.pid, seen.deaths) == (0, [])


async def test_why_it_cannot_be_ready_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(RoleFailed, match="ca did not start: no: because") as failed:
        await child(tmp_path, REFUSING, Seen()).start()
    assert failed.value.fix == "do"


async def test_one_that_ends_without_a_word_is_told_by_its_exit_code_and_its_log(tmp_path: Path) -> None:
    with pytest.raises(RoleFailed, match="it ended with exit code 7") as failed:
        await child(tmp_path, SILENT, Seen()).start()
    assert str(tmp_path / "ca.log") in failed.value.fix


async def test_a_start_that_is_given_up_in_the_moment_of_its_word_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Ctrl-C would end what is there by now, and go on starting the rest."""
    line = module._line

    async def given_up(descriptor: int) -> bytes:
        word = await line(descriptor)
        asyncio.get_running_loop().call_soon(starting.cancel)
        return word

    monkeypatch.setattr(module, "_line", given_up)
    process = child(tmp_path, LEASHED, Seen())

    async def start_it_and_more() -> None:
        await process.start()
        await asyncio.Event().wait()

    starting = asyncio.create_task(start_it_and_more())
    await asyncio.wait({starting}, timeout=30)
    was_given_up = starting.cancelled()
    starting.cancel()
    await process.stop()
    assert was_given_up


async def test_one_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READY_WITHIN", 0.2)
    monkeypatch.setattr(module, "_LAST_WORDS", 0.1)
    process = child(tmp_path, "import sys; sys.stdin.read()", Seen())
    with pytest.raises(RoleFailed, match="it was not ready within"):
        await process.start()
    assert process.pid == 0


async def test_one_that_was_killed_is_started_again_and_stays_gone_when_stopped(tmp_path: Path) -> None:
    seen = Seen()
    process = child(tmp_path, LEASHED, seen)
    await process.start()
    first = process.pid
    os.kill(first, signal.SIGKILL)
    await asyncio.wait_for(seen.back.wait(), 30)
    assert seen.deaths == [("ca", "it was ended by SIGKILL")]
    assert process.pid not in (0, first)
    assert process.restarts == 1
    await process.stop()
    assert process.pid == 0
    assert len(seen.deaths) == 1


async def test_one_that_does_not_end_when_it_is_told_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.2)
    process = child(tmp_path, STUBBORN, Seen())
    await process.start()
    await process.stop()
    assert process.pid == 0


async def test_what_it_said_last_is_taken_before_it_counts_as_stopped(tmp_path: Path) -> None:
    """The summary of a run, and its exit code, count every call that was reported."""
    taken: list[str] = []
    argv = [sys.executable, "-c", TALKATIVE]
    command = Command("orders", lambda: argv, tmp_path / "log", os.geteuid(), on_line=taken.append)
    process = Process(command, Seen().watcher(), SystemClock())
    await process.start()
    await process.stop()
    assert [int(line) for line in taken] == list(range(LAST_LINES))


async def test_one_that_ends_while_others_are_stopped_is_not_started_again(tmp_path: Path) -> None:
    """Whoever stops `livery up` may have stopped its children too."""
    seen = Seen()
    process = child(tmp_path, LEASHED, seen)
    await process.start()
    keeping = process._task
    assert keeping is not None
    await asyncio.sleep(0)  # it begins to wait for the end
    process.expect_end()
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(keeping, 30)
    assert (process.pid, seen.deaths, seen.back.is_set()) == (0, [], False)
    await process.stop()


async def test_one_whose_settings_cannot_be_written_is_tried_again_until_they_can(tmp_path: Path) -> None:
    """A full disk ends a role, and keeps it from its restart for a while."""
    seen, full = Seen(), [False]

    def argv() -> list[str]:
        if full[0]:
            full[0] = False
            raise FileNotWritten("could not write livery.toml", why="no space left")
        return [sys.executable, "-c", LEASHED]

    process = Process(Command("ca", argv, tmp_path / "ca.log", os.geteuid()), seen.watcher(), SystemClock())
    await process.start()
    full[0] = True
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(seen.back.wait(), 30)
    await process.stop()
    assert [why for _, why in seen.deaths] == ["it was ended by SIGKILL", "could not write livery.toml: no space left"]
