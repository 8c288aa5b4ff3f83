"""`--watch`: what is shown again and what is not, while the other side is there and while it is away."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click
import pytest

from livery_cli.exits import Exit
from livery_cli.main import COMMANDS, livery, run
from livery_cli.peers.client import NotFound, PeerFailed, Unreachable
from livery_cli.terminal.options import output_option
from livery_cli.terminal.output import Shown, View, one, several
from livery_cli.terminal.watching import follow, printing, watchable

VIEW = View({"name": "NAME"}, name="name")
AWAY = Unreachable("the CA did not answer", why="nobody there")
A, B = several([{"name": "a"}], VIEW), several([{"name": "a"}, {"name": "b"}], VIEW)
NONE = several([], VIEW)


def watch(output: str, *looks: Shown | Exception, ending: BaseException | None = None) -> list[float]:
    """Look as often as there are answers, then be interrupted; how long was slept in between."""
    answers: Iterator[Any] = iter([*looks, ending or KeyboardInterrupt()])
    slept: list[float] = []

    def look() -> Shown:
        found = next(answers)
        if isinstance(found, BaseException):
            raise found
        return found

    with pytest.raises(type(ending or KeyboardInterrupt())):
        follow(look, printing(output), timedelta(seconds=3), sleep=slept.append)
    return slept


def test_json_is_one_document_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    slept = watch("json", A, A, B, B, A, NONE)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [A.document, B.document, A.document, []]
    assert slept == [3] * 6


def test_a_table_is_printed_again_below_when_it_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    watch("table", A, A, B, A)
    assert capsys.readouterr().out == "NAME\na\n\nNAME\na\nb\n\nNAME\na\n"


def test_names_are_printed_again_when_they_have_changed(capsys: pytest.CaptureFixture[str]) -> None:
    watch("name", A, B, B)
    assert capsys.readouterr().out == "a\n\na\nb\n"


def test_that_nothing_is_left_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    watch("table", A, NONE, NONE, A)
    told = capsys.readouterr()
    assert told.err == "nothing to show\n"
    assert told.out == "NAME\na\n\nNAME\na\n"


@pytest.mark.parametrize(("output", "lines"), [("json", 2), ("table", 3), ("name", 1)])
def test_what_differs_at_each_look_is_no_change(output: str, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A document that counts seconds says itself what in it is steady."""
    looks = [
        Shown({"time": number, "state": state}, ["x"], lambda text=f"{state} for {number}s": text, steady=state)
        for number, state in enumerate(["up", "up", "down", "down"])
    ]
    watch(output, *looks)
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_an_absence_is_told_once_and_so_is_the_return(capsys: pytest.CaptureFixture[str]) -> None:
    watch("json", A, AWAY, PeerFailed("the CA met an error"), AWAY, A, AWAY, B)
    told = capsys.readouterr()
    assert told.err.splitlines() == ["away: the CA did not answer: nobody there", "back"] * 2
    assert [json.loads(line) for line in told.out.splitlines()] == [A.document, B.document]


def test_what_no_waiting_can_mend_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    watch("json", A, AWAY, ending=NotFound("entry not found"))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_who_is_not_there_at_first_is_an_error_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch("json", ending=AWAY) == []
    assert capsys.readouterr().err == ""


def test_ctrl_c_ends_it_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    looks: list[str] = []

    @click.command("sample")
    @click.option("--ending", default="!")
    @output_option
    @watchable
    def sample(ending: str) -> Shown:
        looks.append(ending)
        if len(looks) > 2:
            raise KeyboardInterrupt
        return one({"name": len(looks)}, VIEW, Exit.NO)

    monkeypatch.setitem(livery.commands, "sample", sample)
    assert run(["sample", "-o", "json", "--watch", "--interval", "1ms", "--ending", "?"]) == Exit.INTERRUPTED
    assert capsys.readouterr().out == '{"name": 1}\n{"name": 2}\n'
    looks.clear()
    assert run(["sample"]) == Exit.NO, "without --watch, one look and its own exit code"
    assert looks == ["!"]


def showing() -> list[str]:
    """Every command that shows how something is, by its full name."""
    found = []
    for name, lazy in COMMANDS.items():
        command = lazy.load()
        inner = command.commands if isinstance(command, click.Group) else {}
        found += [f"{name} {each}" for each in inner if each in {"show", "list", "health"}]
    return [*found, "inspect"]


@pytest.mark.parametrize("name", showing())
def test_every_command_that_shows_something_can_be_watched(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--help"]) == Exit.DONE
    told = capsys.readouterr().out
    assert "--watch" in told
    assert "--interval" in told


def test_on_a_terminal_the_table_is_drawn_over_itself() -> None:
    """And what is said meanwhile still goes to standard error, when that is somewhere else."""
    program = """if True:
        from datetime import timedelta
        from tests.unit.cli.test_watching import A, B, AWAY
        from livery_cli.terminal.watching import _presenting, follow
        looks = iter([A, AWAY, B, KeyboardInterrupt()])
        def look():
            found = next(looks)
            if isinstance(found, BaseException):
                raise found
            return found
        try:
            with _presenting("table") as present:
                follow(look, present, timedelta(1), sleep=lambda _: None)
        except KeyboardInterrupt:
            pass
    """
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stderr=subprocess.PIPE, env=environment) as p:
        os.close(theirs)
        assert p.stderr is not None
        said = p.stderr.read().decode()
        drawn = b""
        while chunk := _read(ours):
            drawn += chunk
    os.close(ours)
    assert (p.returncode, said) == (0, "away: the CA did not answer: nobody there\nback\n")
    assert drawn.count(b"NAME") >= 2
    up, erase = b"\x1b[1A", b"\x1b[2K"
    assert up in drawn, "the second table starts where the first one did"
    assert erase in drawn


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: the other end of a pty is closed
        return b""
