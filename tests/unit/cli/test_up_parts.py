"""The parts of `livery up` that need no process: what it counts and says, where it keeps things, who runs as whom."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from livery.runtime.clock import SystemClock
from livery_cli.exits import Exit
from livery_cli.main import run
from livery_cli.peers.client import Unreachable
from livery_cli.peers.unix_http import Answer
from livery_cli.up.board import Board, Call, Identity, Latencies
from livery_cli.up.command import _stopping
from livery_cli.up.entries import Registrar
from livery_cli.up.events import Event
from livery_cli.up.layout import Layout
from livery_cli.up.logs import shorten
from livery_cli.up.node_identity import NodeIdentity, node_identity
from livery_cli.up.observer import Observer
from livery_cli.up.persona import _by_interpreter
from livery_cli.up.process import Command, Process, RoleFailed, Watcher
from livery_cli.up.report import Report, report
from livery_cli.up.roles import Roles
from livery_cli.up.screen import LiveScreen, PlainScreen, next_commands, program, welcome
from livery_cli.up.settings import Settings
from livery_cli.up.supervisor import Parts, Supervisor

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
CALL = Call("orders", "inventory", "GET", "/stock/pear", "allowed", "", "", 2.5)


def identity(serial: str) -> Identity:
    return Identity("spiffe://td/a", serial, NOW, None)


def test_a_new_serial_is_a_rotation_and_the_first_one_is_not() -> None:
    board = Board()
    assert [board.hold("a", identity(serial)) for serial in ("1", "1", "2", "2", "3")] == [
        False, False, True, False, True,
    ]  # fmt: skip
    assert board.summary()["rotations"] == 2


def test_the_summary_counts_calls_by_outcome() -> None:
    board = Board()
    for outcome in ("allowed", "allowed", "denied", "failed"):
        board.count(Call("a", "b", "GET", "/x/1", outcome, "", "", 1))
    summary = board.summary()
    assert (summary["calls"], summary["allowed"], summary["denied"], summary["failures"]) == (4, 2, 1, 1)
    assert board.by_call["a", "b", "GET /x/…", "allowed"] == 2


def test_quantiles_are_within_five_percent_and_memory_is_bounded() -> None:
    latencies = Latencies()
    for number in range(1, 10_001):
        latencies.add(number / 10)
    assert latencies.quantile(0.5) == pytest.approx(500, rel=0.06)
    assert latencies.quantile(0.99) == pytest.approx(990, rel=0.06)
    assert len(latencies.buckets) < 310
    assert Latencies().quantile(0.5) is None


def test_an_event_is_one_line_of_json_with_its_name_first() -> None:
    line = Event("degraded", NOW, {"what": "ca", "why": "two\nlines"}).line()
    assert "\n" not in line
    assert list(json.loads(line))[:3] == ["event", "schema", "time"]
    assert json.loads(line)["time"] == "2026-05-06T07:08:09.000Z"


def test_a_summary_without_calls_has_no_latencies() -> None:
    assert Event("stopped", NOW, Board().summary()).sentence() == "07:08:09 stopped   0 rotations, no calls"


async def test_identities_of_the_same_last_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [
        {"spiffe_id": f"spiffe://td{path}", "serial": path, "expires_at": NOW.isoformat(), "renew_at": None}
        for path in ("/a/web", "/b/web", "/orders")
    ]
    monkeypatch.setattr("livery_cli.up.observer.ask", lambda *_, **__: Answer(200, {"identities": held}))
    assert list(await Observer(Layout(tmp_path, tmp_path)).identities()) == ["a/web", "b/web", "orders"]


def test_a_service_reports_a_call_and_livery_up_reads_it_back(capsys: pytest.CaptureFixture[str]) -> None:
    report(CALL)
    taken: list[Call] = []
    reader = Report(taken.append)
    for line in [*capsys.readouterr().out.splitlines(), "hello", '{"source": 1}', "[]", ""]:
        reader.line(line)
    assert taken == [CALL]


def test_plain_output_tells_each_kind_of_call_once_and_every_failure(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen(Board())
    allowed = {"from": "a", "to": "b", "method": "GET", "path": "/x", "outcome": "allowed", "reason": ""}
    for fields in (allowed, allowed, allowed | {"outcome": "failed"}, allowed | {"outcome": "failed"}):
        screen.show(Event("call", NOW, fields))
    assert len(capsys.readouterr().out.splitlines()) == 3


READY = {
    "state": "/s",
    "ca_address": "localhost:1",
    "policy_address": "localhost:2",
    "trust_domain": "demo.livery.test",
}
READY |= dict.fromkeys(("ca_socket", "spiffe_endpoint_socket", "agent_socket", "policy_socket"), f"unix:/{'s' * 90}")


def test_the_live_picture_fits_a_terminal_of_80_columns_and_24_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """With everything there is to see, one role away included; what is for pasting is above it and in one piece."""
    board = Board(denied_because="because no policy permits it; nearest: " + "x" * 90, troubles={"ca": "it was ended"})
    for name in ("inventory", "orders", "policy"):
        held = Identity(f"spiffe://demo.livery.test/{name}", "ab" * 20, NOW, NOW)
        board.hold(name, held)
        fields = {"service": name, "serial": held.serial, "expires_at": NOW.isoformat()}
        board.recent.append(Event("rotated", NOW, fields))
    for call in (CALL, replace(CALL, method="DELETE", outcome="denied"), replace(CALL, outcome="failed")):
        board.count(call)
    screen = LiveScreen(board)
    screen.show(Event("ready", NOW, READY))
    console = Console(width=80, height=24, file=StringIO())
    console.print(screen._picture(NOW))
    screen.close()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) < 24
    assert all(any(f"spiffe://demo.livery.test/{name} " in line for line in lines) for name in ("orders", "inventory"))
    assert lines[-1].startswith("Ctrl-C")
    above = capsys.readouterr().out.splitlines()
    assert all(any(line.strip() == command for line in above) for command in next_commands(READY))


def test_a_log_that_became_long_is_moved_aside_and_written_on(tmp_path: Path) -> None:
    log = tmp_path / "orders.log"
    with log.open("ab") as role:
        role.write(b"first\n")
        role.flush()
        shorten(log, 6)
        assert log.read_text() == "first\n", "it is not too long"
        shorten(log, 5)
        role.write(b"then\n")
    assert (log.read_text(), (tmp_path / "orders.1.log").read_text()) == ("then\n", "first\n")
    shorten(tmp_path / "none.log")


def test_plain_output_goes_on_when_the_clock_is_set_back(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board()
    board.count(CALL)
    screen = PlainScreen(board)
    for after in (0, 1, 6, 7, -3600, -3599, -3594):
        screen.tick(NOW + timedelta(seconds=after))
    assert len(capsys.readouterr().out.splitlines()) == 3


class Unread:
    """A screen whose reader went away."""

    def __init__(self) -> None:
        self.closed, self.shown = False, list[str]()

    def progress(self, what: str) -> None: ...

    def show(self, event: Event) -> None:
        self.shown.append(event.name)
        if event.name == "call":
            raise BrokenPipeError

    def tick(self, now: datetime) -> None: ...

    def close(self) -> None:
        self.closed = True


class Alone(Supervisor):
    """Nothing but the watching: there is no process."""

    def __init__(self, state: Path, *, starts: bool = True) -> None:
        layout = Layout(state, state)
        settings = Settings(state, "td", timedelta(seconds=30), 50, True, timedelta(hours=1), "json")
        roles = Roles(settings, layout, NodeIdentity(state, state, state), {})
        self.screen, self._starts = Unread(), starts
        observer = Calls(layout, self)
        board, clock = Board(), SystemClock()
        super().__init__(
            settings, Parts(layout, roles, Registrar(layout.ca_socket), observer, board, self.screen, clock)
        )

    async def _start_all(self) -> None:
        if not self._starts:
            await asyncio.Event().wait()

    def _ready_fields(self) -> dict[str, object]:
        return {}


class Calls(Observer):
    """At each look, one call is reported."""

    def __init__(self, layout: Layout, supervisor: Alone) -> None:
        super().__init__(layout)
        self._supervisor = supervisor

    async def identities(self) -> dict[str, Identity]:
        self._supervisor._took_call(CALL)
        return {}


async def test_a_run_that_nobody_reads_any_more_ends(tmp_path: Path) -> None:
    """`livery up -o json | head`: what cannot be said stops everything, and is not lost in a task."""
    supervisor = Alone(tmp_path)
    with pytest.raises(BrokenPipeError):
        await supervisor.run(asyncio.Event())
    assert supervisor.screen.closed


async def test_ready_is_said_first_whatever_happened_before(tmp_path: Path) -> None:
    """A role that died while others started, and a call that was made before this process came to look."""

    class Eventful(Alone):
        async def _start_all(self) -> None:
            self._died("ca", "it was ended")
            self._took_call(replace(CALL, outcome="denied"))

    supervisor = Eventful(tmp_path)
    with pytest.raises(BrokenPipeError):
        await supervisor.run(asyncio.Event())
    assert supervisor.screen.shown[:3] == ["ready", "degraded", "call"]


async def test_a_run_that_is_stopped_before_all_is_there_was_neither_good_nor_bad(tmp_path: Path) -> None:
    stop = asyncio.Event()
    stop.set()
    assert await Alone(tmp_path, starts=False).run(stop) is None


async def test_a_ca_that_is_gone_is_told_as_everywhere(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="the CA did not answer"):
        await Registrar(tmp_path / "none.sock").bundle()


async def test_a_role_whose_log_cannot_be_written_is_said_not_to_start(tmp_path: Path) -> None:
    log = tmp_path / "none" / "ca.log"
    process = Process(Command("ca", lambda: ["true"], log, os.geteuid()), Watcher(print, print), SystemClock())
    with pytest.raises(RoleFailed, match="ca did not start") as failed:
        await process.start()
    assert str(log) in failed.value.fix


def test_a_state_without_room_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not taken for the terminal, whose disk can be full as well."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/usr/bin/python3", None, str(tmp_path / "python3"))

    monkeypatch.setattr("livery_cli.up.command.personas", full)
    assert run(["up", "--state", str(tmp_path / "state")]) == Exit.REFUSED
    told = capsys.readouterr().err
    assert f"the state directory {tmp_path}/state cannot be used [state_unusable]" in told
    assert f"No space left on device ({tmp_path}/python3)" in told


@pytest.mark.parametrize("rate", ["nan", "0", "inf", "many"])
def test_a_rate_that_is_none_is_wrong_usage(rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up", "--state", str(tmp_path / "state"), "--rate", rate]) == Exit.USAGE
    assert "--rate" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_trust_domain_may_be_given_as_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Settings] = []

    async def note(settings: Settings, clock: object) -> bool:
        taken.append(settings)
        return True

    monkeypatch.setattr("livery_cli.up.command._run", note)
    assert run(["up", "--trust-domain", "spiffe://a.test"]) == Exit.DONE
    assert taken[0].trust_domain == "a.test"


def test_the_welcome_ends_with_three_commands_to_try() -> None:
    ready = dict.fromkeys(
        ("state", "ca_address", "ca_socket", "spiffe_endpoint_socket", "agent_socket", "policy_socket"), "x"
    )
    text = welcome({**ready, "policy_address": "localhost:1", "trust_domain": "td", "services": {}})
    last = text.splitlines()[-3:]
    assert all(line.startswith(f"  {program(sys.argv[0])} ") for line in last)


def test_sockets_of_a_long_state_path_live_beside_it(tmp_path: Path) -> None:
    """A unix socket's path is at most 107 bytes."""
    deep = tmp_path / ("d" * 90)
    layout = Layout.at(deep)
    assert layout.borrowed_run
    assert len(str(layout.workload_socket).encode()) <= 107
    assert (deep / "run" / "ca").is_dir(), "from the state, one still gets there"
    layout.give_back()
    assert not layout.run.exists()
    assert not (deep / "run").is_symlink()


def test_what_a_killed_run_borrowed_goes_away_at_the_next_start(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    killed = Layout.at(deep).run
    again = Layout.at(deep).run
    assert (killed.exists(), again.is_dir()) == (False, True)
    shutil.rmtree(again)
    last = Layout.at(deep).run
    assert last.is_dir(), "also when it was gone already"
    shutil.rmtree(last)


@pytest.mark.parametrize("name", ["first last", "m\u00fcller", "100%41", "a?b#c", "it's"])
def test_sockets_of_a_state_whose_path_no_address_can_have_live_beside_it(tmp_path: Path, name: str) -> None:
    """The address of the Workload API is a URI, and libraries differ in what they decode of it."""
    layout = Layout.at(tmp_path / name)
    assert layout.borrowed_run
    assert (layout.state / "ca").is_dir()
    shutil.rmtree(layout.run)


def test_a_run_that_was_to_outlive_its_terminal_does() -> None:
    assert signal.SIGHUP in set(_stopping())
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert set(_stopping()) == {signal.SIGINT, signal.SIGTERM}
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_secret_cannot_be_entered_by_others(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path / "s")
    modes = {path.name: path.stat().st_mode & 0o777 for path in layout.state.iterdir()}
    assert {modes[name] for name in ("ca", "agent", "node", "logs", "policy")} == {0o700}
    assert (layout.run / "ca").stat().st_mode & 0o777 == 0o700


def test_a_node_identity_is_made_once_and_again_before_it_ends(tmp_path: Path) -> None:
    first = node_identity(tmp_path, NOW).fingerprint()
    assert node_identity(tmp_path, NOW + timedelta(days=3000)).fingerprint() == first
    assert (tmp_path / "node.key").stat().st_mode & 0o777 == 0o600
    assert node_identity(tmp_path, NOW + timedelta(days=3640)).fingerprint() != first
    (tmp_path / "node.pem").write_text("garbage")
    assert node_identity(tmp_path, NOW).fingerprint() != first


def test_each_service_gets_an_interpreter_the_kernel_tells_apart(tmp_path: Path) -> None:
    """The copy imports this installation, and is another `unix:path` than any other service's."""
    orders, inventory = (_by_interpreter(name, tmp_path) for name in ("orders", "inventory"))
    program = "import os, livery_cli, livery.identity; print(os.readlink('/proc/self/exe'))"
    seen = {
        subprocess.run([persona.interpreter, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        for persona in (orders, inventory)
    }
    assert len(seen | {str(Path(sys.executable).resolve())}) == 3
    assert f"unix:path:{sorted(seen)[1]}" in orders.selectors
    made = orders.interpreter.stat().st_mtime_ns
    assert _by_interpreter("orders", tmp_path).interpreter.stat().st_mtime_ns == made, "made once, not at each start"


def test_what_is_shown_to_paste_is_what_was_typed_unless_path_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "a b" / "bin" / "livery"
    installed.parent.mkdir(parents=True)
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    assert program(str(installed)) == f"'{installed}'"
    monkeypatch.setenv("PATH", str(installed.parent))
    assert program(str(installed)) == "livery"
    assert program(".venv/bin/livery") == ".venv/bin/livery", "PATH leads to another one"
    assert program("/x/livery_cli/__main__.py") == f"{sys.executable} -m livery_cli"
