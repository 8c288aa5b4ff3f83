"""Bad input from the network: every door stays up, and a good neighbour's request is served meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.curl import curl
from tests.e2e.hostile import ATTACKS, Door, holding
from tests.e2e.running import Up, alive
from tests.e2e.sockets import family, tcp_listening, unix_listening
from tests.e2e.workloads import admit

ROLES = ("ca", "agent", "policy", "orders", "inventory")
_ROOM = 96 * 1024 * 1024  # bytes that a process may have grown by: far less than was sent to it


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A run of its own, since it may not come through whole."""
    running = Up(tmp_path_factory.mktemp("up") / "state", ("--rate", "20")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def tester(up: Up) -> str:
    """The ID of this program."""
    return admit(up, "/tester")


def doors(up: Up) -> list[Door]:
    """Every socket on which this run listens."""
    pids = family(up.process.pid)
    return [*sorted(tcp_listening(pids)), *sorted(unix_listening(pids))]


def memory(up: Up) -> dict[str, int]:
    return {role: psutil.Process(up.ready["pids"][role]).memory_info().rss for role in ROLES}


def neighbours_are_served(up: Up, tester: str) -> None:
    """One request to every door, as it is meant, and calls between the demo services."""
    up.catch_up()
    up.wait_for_calls("allowed", 20)
    assert up.livery("entry", "list").returncode == 0
    assert up.livery("inspect").returncode == 0
    assert tester in up.livery("svid", "x509", "fetch", "-o", "name").stdout.split()
    ask = json.dumps({"subject": {"type": "spiffe", "id": "x"}, "action": {"name": "http:GET"}}).encode()
    socket = up.ready["policy_socket"].removeprefix("unix:")
    json_body = ("--header", "content-type: application/json")
    assert curl("--unix-socket", socket, *json_body, "http://localhost/access/v1/evaluation", data=ask).status == 400


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_door_outlives_it_and_serves_its_neighbours_meanwhile(up: Up, tester: str, attack: str) -> None:
    found = doors(up)
    assert len(found) >= 7
    before, degraded = memory(up), len(up.of("degraded"))
    with holding(ATTACKS[attack](found)) as opened:
        assert opened >= len(found) or attack == "requests of ten megabytes", "not every door was tried"
        neighbours_are_served(up, tester)
    neighbours_are_served(up, tester)
    assert all(alive(pid) for pid in up.ready["pids"].values())
    assert len(up.of("degraded")) == degraded, up.told()
    grown = {role: rss - before[role] for role, rss in memory(up).items()}
    assert {role: growth for role, growth in grown.items() if growth > _ROOM} == {}


def test_what_was_refused_is_told_without_what_was_sent(up: Up) -> None:
    """The attacks above left lines in the logs; none repeats a request's content, and no line is a traceback."""
    for log in sorted((up.state / "logs").glob("*.log")):
        text = log.read_text("utf-8", "replace")
        assert "Traceback" not in text, log.name
        assert not [line for line in text.splitlines() if len(line) > 16_384], log.name
