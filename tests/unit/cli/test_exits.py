"""Exit codes and the three lines of an error."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import click
import pytest

from livery.errors import Kind, LiveryError
from livery.runtime.directories import NoHome
from livery_cli.commands.svid_files import write_svid
from livery_cli.exits import Exit, exit_code, tell
from livery_cli.main import COMMANDS, livery, main, run
from livery_cli.peers.client import Refused, target


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


def test_what_another_said_in_an_error_does_not_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Sample("the CA says: \x1b[2J", why="one\nerror: another [forged]"))
    assert capsys.readouterr().err.splitlines() == [
        r"error: the CA says: \x1b[2J [sample]",
        r"  why: one\nerror: another [forged]",
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


def test_a_socket_by_a_name_that_no_file_can_have_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["entry", "list", "--ca-socket"], ["inspect", "--agent-socket"]):
        assert run([*command, "unix:/" + "x" * 5000]) == Exit.UNREACHABLE
        assert "no socket there" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["", " ", "http://localhost", "localhost", "tcp://", "::::", "tcp://localhost:x"])
def test_an_address_that_is_none_is_2_and_says_how_one_looks(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    """And gRPC's own library has no word in it."""
    assert run(["entry", "list", "--ca-socket", address]) == Exit.USAGE
    told = capfd.readouterr().err.splitlines()
    assert told[0].startswith(f"error: {address!r} is no address of the CA")
    assert "write it like unix:" in told[2]


@pytest.mark.parametrize("command", [["up"], ["ca", "init", "--trust-domain", "a.test"]])
def test_a_user_without_a_home_is_told_to_say_where(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_home() -> Path:
        raise NoHome("there is no place for state", why="user 1 has no home directory")

    monkeypatch.setattr("livery_cli.terminal.options.state_directory", no_home)
    assert run(command) == Exit.USAGE
    assert "--state" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["entry", "list", "--ca-socket"], ["inspect", "--agent-socket"], ["svid", "x509", "fetch", "--endpoint-socket"]],
)
def test_a_socket_that_this_user_may_not_open_is_a_refusal(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # root may open any
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("closed.sock")
        assert run([*command, "unix:closed.sock"]) == Exit.REFUSED
    told = capfd.readouterr().err.splitlines()
    assert told[0] == "error: may not open unix:closed.sock [refused]"
    assert told[2].startswith("  fix: run the command as the user")


@contextmanager
def answering(path: str, status: str, body: dict[str, object]) -> Iterator[None]:
    """A socket that gives each of two callers this answer."""
    text = json.dumps(body)
    answer = f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer_all() -> None:
            while True:
                try:
                    asked = listening.accept()[0]
                except OSError:
                    return
                with asked:
                    asked.sendall(answer)
                    asked.recv(65536)

        thread = threading.Thread(target=answer_all)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_why_an_administrators_socket_refuses_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    body: dict[str, object] = {"code": "not_admitted", "what": "administration is not for you", "why": ""}
    with answering("policy.sock", "403 Forbidden", body):
        assert run(["explain", "d-1", "--policy-socket", "unix:policy.sock"]) == Exit.REFUSED
    assert "  why: administration is not for you" in capfd.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("role", "body"),
    [("agent", {"ready": False, "why": "no word of the CA yet"}), ("policy", {"status": "unavailable"})],
)
def test_a_role_that_is_not_ready_is_a_no_with_the_reason(
    role: str,
    body: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It came out as an error of livery's own: exit code 70."""
    monkeypatch.chdir(tmp_path)
    with answering("role.sock", "503 Service Unavailable", body):
        assert run([role, "health", f"--{role}-socket", "unix:role.sock", "-o", "json"]) == Exit.NO
    said = json.loads(capfd.readouterr().out)
    assert said == {"role": role, "serving": False, "why": body.get("why") or body["status"]}


@pytest.mark.parametrize(("typed", "meant"), [(["entyr", "list"], "entry"), (["entry", "lsit"], "list")])
def test_a_mistyped_command_is_told_the_nearest_one(
    typed: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(typed) == Exit.USAGE
    told = capsys.readouterr().err
    assert "Did you mean" in told
    assert f"'{meant}'" in told


def test_a_socket_is_named_to_grpc_as_the_file_it_is() -> None:
    """Which would read an address as a URI, and ask another socket or none."""
    assert target("unix:/a b/100%41?x#y") == "unix:/a%20b/100%2541%3Fx%23y"
    assert target("/run/m\u00fcller.sock") == "unix:/run/m%C3%BCller.sock"
    assert target("unix:///run/a.sock") == "unix:/run/a.sock"
    assert target("tcp://127.0.0.1:8081") == "127.0.0.1:8081"


def test_a_configuration_to_start_from_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ca", "init", "--trust-domain", "a.test", "--state", str(tmp_path / "my ca")]
    assert run(command) == Exit.DONE
    assert f"livery ca run --config '{tmp_path}/my ca/livery.toml'" in capsys.readouterr().out
    assert run(command) == Exit.REFUSED
    assert "livery.toml exists" in capsys.readouterr().err


def test_a_configuration_is_checked_in_each_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "livery.toml").write_text('[ca]\ntrust_domain = "a.test"\n')
    check = ["ca", "config", "check", "--config", str(tmp_path / "livery.toml")]
    assert run(check) == Exit.DONE
    line = capsys.readouterr().out.splitlines()[0]
    assert run([*check, "-o", "json"]) == Exit.DONE
    first = json.loads(capsys.readouterr().out)[0]
    assert line == f"{first['name']} = {first['value']}  # {first['source']}"
    assert run([*check, "-o", "name"]) == Exit.DONE
    assert capsys.readouterr().out.splitlines()[0] == first["name"]


def test_a_state_that_is_a_file_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["ca", "init", "--trust-domain", "a.test", "--state", str(tmp_path / "file")]) == Exit.REFUSED
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert f"'{tmp_path}/file'" in told


def test_a_bad_spiffe_id_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mint", "jwt", "spiffe://UPPER/x", "--audience", "a", "--ca-socket", str(tmp_path)]
    assert run(arguments) == Exit.USAGE
    assert "UPPER" in capsys.readouterr().err


def test_a_name_that_dns_cannot_have_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mint", "x509", "spiffe://a.test/x", "--dns", "b\u00fccher.test", "--ca-socket", str(tmp_path)]
    assert run(arguments) == Exit.USAGE
    assert "xn--" in capsys.readouterr().err


def test_a_socket_that_is_none_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "health", "--agent-socket", "http://localhost"]) == Exit.USAGE
    assert "write it like unix:" in capsys.readouterr().err


def test_what_answers_in_another_protocol_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        answering = threading.Thread(target=_answer_nonsense, args=(listening,))
        answering.start()
        assert run(["agent", "health", "--agent-socket", str(tmp_path / "s")]) == Exit.UNREACHABLE
        answering.join()
    told = capsys.readouterr().err
    assert "does not speak HTTP" in told
    assert "\x1b" not in told


def _answer(listening: socket.socket, answer: bytes) -> None:
    accepted, _ = listening.accept()
    with accepted:
        accepted.recv(4096)
        accepted.sendall(answer)


def _answer_nonsense(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"\x1b[2J\x00\x01\r\n")


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"a']
)
def test_who_ends_within_its_answer_is_not_said_to_answer_wrongly(
    part: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A role that is stopped while it is asked."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        answering = threading.Thread(target=_answer, args=(listening, part))
        answering.start()
        assert run(["agent", "health", "--agent-socket", f"unix:{path}"]) == Exit.UNREACHABLE
        answering.join()
    told = capsys.readouterr().err
    assert "the agent did not answer at" in told
    assert "it closed the connection before the end of its answer" in told


def test_a_directory_that_cannot_be_made_for_the_files_is_4(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be made"):
        write_svid(tmp_path / "file" / "svids", [b""], b"", [])


def test_a_full_disk_under_the_output_is_4_and_no_error_of_ours(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "livery_cli", "completion", "bash"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == Exit.REFUSED
    assert b"No space left on device" in done.stderr
    assert b"error of its own" not in done.stderr


def test_a_reader_that_went_away_is_no_error() -> None:
    """`livery ... | head`"""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "livery_cli", "completion", "bash"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (Exit.DONE, b"")


def test_without_an_output_it_writes_into_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """`livery ... >&- 2>&-`: Python has None there, and the next file would be opened as the output."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    for name in ("heed", "forget"):  # the signals of this process are the tests' own
        monkeypatch.setattr(f"livery_cli.main.{name}", lambda: None)
    monkeypatch.setattr(sys, "argv", ["livery", "frobnicate"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.USAGE
    for output in (sys.stdout, sys.stderr):
        assert Path(f"/proc/self/fd/{output.fileno()}").readlink() == Path(os.devnull)
        output.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_loads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == Exit.DONE
    assert "Usage:" in capsys.readouterr().out


def leaves(command: click.Command, *names: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from leaves(inner, *names, name)
    else:
        yield " ".join(names), command


def test_every_command_that_answers_does_so_in_each_form() -> None:
    """But for those that run on, write a file to start from, or print a text of its own form."""
    of_their_own = {"completion", "ca init", "ca run", "agent run", "policy run", "bundle show"}
    without = {
        name
        for name, command in leaves(livery)
        if not any({"-o", "--output"} <= set(parameter.opts) for parameter in command.params)
    }
    assert without == of_their_own


def test_the_documentation_lists_every_command_and_each_of_their_own() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `livery ([a-z]+)` \| (.*) \|$", page, re.MULTILINE))
    assert list(rows) == list(COMMANDS)
    for name, lazy in COMMANDS.items():
        command = lazy.load()
        for inner in command.commands if isinstance(command, click.Group) else ():
            assert f"`{inner}" in rows[name], f"livery {name} {inner}"
