"""Completion without a CA: the scripts, the words that bash cuts, and silence whatever is wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livery_cli.completion import joined
from livery_cli.exits import Exit
from livery_cli.main import COMMANDS, run

LIVERY = str(Path(sys.executable).parent / "livery")


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        (["livery", "entry", "show", ""], ["livery", "entry", "show", ""]),
        (["livery", "mint", "x509", "spiffe", ":", "//a/b"], ["livery", "mint", "x509", "spiffe://a/b"]),
        (["livery", "mint", "x509", "spiffe", ":"], ["livery", "mint", "x509", "spiffe:"]),
        (["livery", "mint", "x509", "spiffe", ":", ""], ["livery", "mint", "x509", "spiffe:"]),
        (["livery", "can", "spiffe", ":", "//a/b", "ht"], ["livery", "can", "spiffe://a/b", "ht"]),
        (["livery", "can", "spiffe", ":", "//a/b", "http", ":", "GET"], ["livery", "can", "spiffe://a/b", "http:GET"]),
        (["livery", "x", "a", ":", "b", ":", "c"], ["livery", "x", "a:b:c"]),
        (["livery", "x", "spiffe://a/b"], ["livery", "x", "spiffe://a/b"]),
    ],
)
def test_words_that_bash_cuts_at_colons_are_put_together(cut: list[str], whole: list[str]) -> None:
    assert joined(cut) == whole


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == Exit.DONE
    assert f"_LIVERY_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_another_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"]) == Exit.USAGE
    assert "tcsh" in capsys.readouterr().err


def answered(*words: str, **environment: str) -> tuple[str, str]:
    """What a shell reads when the last of these words is completed, and what its user would see besides."""
    asking = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), "_LIVERY_COMPLETE": "bash_complete"}
    inherited = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": "/nonexistent"}
    done = subprocess.run(
        [LIVERY], env=inherited | asking | environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip(), done.stderr


def test_commands_and_options_are_completed() -> None:
    told, seen = answered("livery", "")
    assert told.split() == [f"plain,{name}" for name in COMMANDS]
    assert seen == ""
    told, seen = answered("livery", "entry", "create", "--w")
    assert told.split() == ["plain,--wait"]


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Addresses at which nobody answers, each in a way of its own."""
    stale, silent = tmp_path / "stale", tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(stale))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(silent))
        listening.listen()
        yield {
            "missing": f"unix:{tmp_path}/none",
            "stale": f"unix:{stale}",
            "silent": f"unix:{silent}",
            "nonsense": "::::",
        }


@pytest.mark.parametrize("which", ["missing", "stale", "silent", "nonsense"])
@pytest.mark.parametrize(
    "words",
    [
        ("entry", "show", ""),
        ("node", "ban", "spiffe"),
        ("mint", "x509", "s"),
        ("svid", "x509", "fetch", "--spiffe-id", "s"),
    ],
)
def test_nobody_at_the_socket_is_no_completion_and_no_word(
    sockets: dict[str, str], which: str, words: tuple[str, ...]
) -> None:
    started = time.monotonic()
    talkative = {"GRPC_VERBOSITY": "debug", "GRPC_TRACE": "all"}
    named = dict.fromkeys(("LIVERY_CA_SOCKET", "SPIFFE_ENDPOINT_SOCKET"), sockets[which])
    assert answered("livery", *words, **named, **talkative) == ("", "")
    assert time.monotonic() - started < 20, "it gives up after two seconds, whatever this machine does besides"


@pytest.mark.parametrize(
    "environment", [{"COMP_CWORD": "x"}, {"_LIVERY_COMPLETE": "tcsh_complete"}, {"_LIVERY_COMPLETE": "bash_unheard"}]
)
def test_a_shell_that_asks_nonsense_gets_no_traceback(environment: dict[str, str]) -> None:
    assert answered("livery", "en", **environment)[0] == ""
    assert "Traceback" not in answered("livery", "en", **environment)[1]
