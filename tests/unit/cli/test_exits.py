"""Exit codes and the three lines of an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import click
import pytest

from livery.errors import Kind, LiveryError
from livery_cli.exits import Exit, exit_code, tell
from livery_cli.main import COMMANDS, run


class Sample(LiveryError):
    code: ClassVar[str] = "sample"
    kind: ClassVar[Kind] = Kind.CONFLICT


EXPECTED = {
    Kind.INVALID: 2,
    Kind.UNAVAILABLE: 3,
    Kind.INTERNAL: 70,
    **dict.fromkeys(
        [
            Kind.UNAUTHENTICATED,
            Kind.DENIED,
            Kind.NOT_FOUND,
            Kind.CONFLICT,
            Kind.PRECONDITION,
            Kind.EXHAUSTED,
            Kind.UNIMPLEMENTED,
        ],
        4,
    ),
}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_error_has_its_exit_code(kind: Kind) -> None:
    error = type("Leaf", (LiveryError,), {"kind": kind})("what")
    assert exit_code(error) == EXPECTED[kind]


def test_an_error_is_told_in_three_lines_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Sample("the port is taken", why="pid 7 listens there", fix="give another --port"))
    assert capsys.readouterr().err.splitlines() == [
        "error: the port is taken [sample]",
        "  why: pid 7 listens there",
        "  fix: give another --port",
    ]


def test_wrong_usage_is_2_and_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["entry", "list", "--no-such-option"]) == Exit.USAGE
    assert "--no-such-option" in capsys.readouterr().err


def test_an_unknown_command_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["frobnicate"]) == Exit.USAGE
    assert "frobnicate" in capsys.readouterr().err


def test_nobody_at_the_socket_is_3_and_says_how_to_start_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["entry", "list", "--ca-socket", f"unix:{tmp_path}/none.sock"]) == Exit.UNREACHABLE
    told = capsys.readouterr().err
    assert "none.sock" in told
    assert "livery up" in told


def test_a_bad_spiffe_id_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mint", "jwt", "spiffe://UPPER/x", "--audience", "a", "--ca-socket", str(tmp_path)]
    assert run(arguments) == Exit.USAGE
    assert "UPPER" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_loads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == Exit.DONE
    assert "Usage:" in capsys.readouterr().out


def test_the_documentation_lists_every_command_and_each_of_their_own() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `livery ([a-z]+)` \| (.*) \|$", page, re.MULTILINE))
    assert list(rows) == list(COMMANDS)
    for name, lazy in COMMANDS.items():
        command = lazy.load()
        for inner in command.commands if isinstance(command, click.Group) else ():
            assert f"`{inner}" in rows[name], f"livery {name} {inner}"
