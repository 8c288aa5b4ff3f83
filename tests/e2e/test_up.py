"""`livery up`: the main job of the product, on real input, from the first line to the last."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from livery_cli.up.screen import next_commands
from tests.e2e.running import Up, alive, livery, wait_until

Start = Callable[..., Up]


def descendants(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def test_three_rotations_under_load_fail_no_request_and_deny_every_denied_call(start_up: Start) -> None:
    """The short form of the recorded long run: rotation is seen, nothing fails, exit code 0."""
    up = start_up("--svid-ttl", "12s", "--rate", "50", "--for", "25s")
    pids = {int(pid) for pid in up.ready["pids"].values()} | descendants(up.process.pid)
    code = up.wait_for_end(60)

    summary = up.of("stopped")[0]
    assert code == 0, up.told()
    assert summary["failures"] == 0
    assert summary["allowed"] > 20 * 45
    assert summary["denied"] >= 15
    rotated = {event["service"] for event in up.of("rotated")}
    assert {"orders", "inventory"} <= rotated
    assert all(len([e for e in up.of("rotated") if e["service"] == name]) >= 3 for name in ("orders", "inventory"))
    calls = up.of("call")
    assert {call["outcome"] for call in calls if call["method"] == "DELETE"} == {"denied"}
    assert {call["outcome"] for call in calls if call["method"] == "GET"} == {"allowed"}
    assert all(call["reason"] and call["decision_id"] for call in calls if call["outcome"] == "denied")
    assert not [pid for pid in pids if alive(pid)]


def test_ready_comes_first_and_says_where_everything_is(up: Up) -> None:
    """Scripts rely on these fields."""
    ready = up.events[0]
    assert ready["event"] == "ready"
    assert ready["schema"] == 1
    assert set(ready["pids"]) >= {"ca", "agent", "policy", "orders", "inventory"}
    assert all(alive(pid) for pid in ready["pids"].values())
    for field in ("ca_socket", "spiffe_endpoint_socket", "policy_socket"):
        assert Path(ready[field].removeprefix("unix:")).is_socket()
    assert ready["services"]["orders"]["id"] == f"spiffe://{ready['trust_domain']}/orders"
    assert ready["services"]["inventory"]["url"].startswith("https://localhost:")


def test_the_three_commands_it_ends_its_first_screen_with_work_as_printed(up: Up) -> None:
    codes = [
        subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False).returncode
        for command in next_commands(up.ready)
    ]
    assert codes == [0, 0, 1]  # the last asks for what is denied


def test_ctrl_c_and_kill_9_leave_nothing_running_and_the_next_start_resumes_the_same_trust_domain(
    start_up: Start, tmp_path: Path
) -> None:
    """Same authorities, same agent, same entries: nothing is made anew.

    The children hold a leash: when its other end is gone, so are they.
    """
    first = start_up(state=tmp_path / "kept")
    seen, pids = lasting(first), descendants(first.process.pid)
    assert len(pids) >= 5
    assert first.stop() in (0, 130)
    assert not [pid for pid in pids if alive(pid)]

    second = start_up("--no-demo", state=tmp_path / "kept")
    assert lasting(second) == seen
    assert seen[0].count("BEGIN CERTIFICATE") == 1
    pids = descendants(second.process.pid)
    second.process.kill()
    second.process.wait(timeout=10)
    wait_until(lambda: not [pid for pid in pids if alive(pid)], 20, f"all of {pids} gone")
    # Its sockets' directory is the next start's to remove, of which there is none.
    shutil.rmtree(Path(second.ready["ca_socket"].removeprefix("unix:")).parents[1])


def lasting(up: Up) -> tuple[str, str, str]:
    """What a second start has to find again: authorities, agents and entries."""
    bundle = up.livery("bundle", "show", "--format", "pem").stdout
    return bundle, up.livery("node", "list", "-o", "name").stdout, up.livery("entry", "list", "-o", "name").stdout


def test_a_second_up_on_the_same_state_is_refused_by_name(up: Up) -> None:
    second = livery("up", "--state", str(up.state), "--output", "json")
    assert second.returncode == 4
    assert str(up.process.pid) in second.stderr
    assert "fix:" in second.stderr
    up.wait_for_calls("allowed", 5)


@pytest.mark.parametrize("role", ["ca", "agent", "policy"])
def test_kill_9_of_a_role_is_said_and_mended(start_up: Start, role: str) -> None:
    """The role comes back by itself; with the CA or the agent away no request fails at all."""
    up = start_up("--svid-ttl", "50s")  # half of it is what a busy machine may need to start the CA again
    up.wait_for_calls("allowed", 10)
    os.kill(up.ready["pids"][role], signal.SIGKILL)
    up.wait_for(lambda event: event["event"] == "degraded" and event["what"] == role, 10)
    up.wait_for(lambda event: event["event"] == "recovered" and event["what"] == role, 30)
    if role == "policy":
        # While nobody can decide, nothing is allowed: those calls fail closed. Afterwards all is as before.
        up.wait_for(lambda event: event["event"] == "call" and event["outcome"] == "allowed", 30)
    else:
        for service in ("orders", "inventory"):
            up.wait_for(lambda event, name=service: event["event"] == "rotated" and event["service"] == name, 60)
        assert not [event for event in up.of("call") if event["outcome"] == "failed"], up.told()
    up.wait_for_calls("allowed", 50)


def test_a_plain_pipe_gets_lines_a_person_can_read(tmp_path: Path) -> None:
    # At two calls a second every other one deletes: however slow the machine, one of the first few is denied.
    done = livery("up", "--state", str(tmp_path / "state"), "--for", "4s", "--rate", "2", timeout=90)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("starting ca") < done.stdout.index("livery is up") < done.stdout.index("stopping")
    assert "Try next:" in done.stdout
    assert "orders -> inventory DELETE" in done.stdout
    assert "0 failed" in done.stdout
    assert "\x1b[" not in done.stdout


def test_an_unwritable_state_is_said_with_its_path(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    done = livery("up", "--state", str(blocked / "state"), "--output", "json")
    assert done.returncode in (2, 4)
    assert str(blocked) in done.stderr
    assert "Traceback" not in done.stderr
