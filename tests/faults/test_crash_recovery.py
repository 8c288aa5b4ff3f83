"""kill -9 at any moment: what was answered was written down, nothing is issued twice, and everybody finds back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from spiffe import X509Source

from tests.e2e.roles import Home, ca_home, join_by_token
from tests.e2e.running import Event, Up, wait_until
from tests.e2e.workloads import admit
from tests.faults.witness import journal, keep_minting, open_stream

Start = Callable[..., Up]
KILLS = 4


def killed_and_back(up: Up, role: str) -> None:
    """kill -9 the role that runs now, and wait until `livery up` says that it is back."""
    pid = next((event["pid"] for event in reversed(up.of("recovered")) if event["what"] == role), None)
    os.kill(pid or up.ready["pids"][role], signal.SIGKILL)

    def is_back(event: Event) -> bool:
        return bool(event["event"] == "recovered" and event["what"] == role)

    up.wait_for(is_back, 40)


def test_kill_9_of_the_ca_under_load_breaks_no_stream_and_loses_no_serial(start_up: Start) -> None:
    """Four times, each time while several connections mint without a pause and every identity rotates."""
    up = start_up("--svid-ttl", "60s", "--rate", "20")  # half of it is for the CA to start four times
    tester = admit(up, "/tester")
    minted_id = f"spiffe://{up.ready['trust_domain']}/minted"
    with (
        open_stream(up.ready["spiffe_endpoint_socket"], tester) as stream,
        keep_minting(up.ready["ca_socket"], minted_id) as minted,
    ):
        for _ in range(KILLS):
            enough = len(minted.certificates) + 25
            wait_until(lambda wanted=enough: len(minted.certificates) >= wanted, 40, "certificates between two kills")
            killed_and_back(up, "ca")
        stream.wait_for_more(60)
    assert minted.failures >= 1, "no call was ever in flight when the CA was killed"
    up.catch_up()
    up.wait_for_calls("allowed", 20)
    assert up.stop() == 0, up.told()
    assert not [call for call in up.of("call") if call["outcome"] == "failed"], up.told()

    answered = [*minted.certificates, *stream.leaves]
    assert len({certificate.serial_number for certificate in answered}) == len(answered)
    written = journal(up.state / "ca")
    assert [line.index for line in written] == list(range(len(written)))
    assert len({line.serial for line in written}) == len(written)
    issued = {line.tbs for line in written if line.outcome == "issued"}
    assert not [certificate for certificate in answered if certificate.tbs_certificate_bytes not in issued]
    assert {line.outcome for line in written} <= {"issued", "failed", "withheld", "unknown"}


def test_kill_9_of_the_agent_and_workloads_have_an_svid_again(start_up: Start) -> None:
    """An unmodified client, which was told nothing, goes on being rotated by the agent that came after."""
    up = start_up("--svid-ttl", "16s", "--no-demo")
    tester = admit(up, "/tester")
    with X509Source(socket_path=up.ready["spiffe_endpoint_socket"], timeout_in_seconds=10) as source:
        for _ in range(2):
            before = serial(source)
            killed_and_back(up, "agent")
            wait_until(lambda seen=before: serial(source) != seen, 60, "an SVID from the new agent")
        assert str(source.get_x509_context().default_svid.spiffe_id) == tester
    assert up.livery("svid", "x509", "fetch").returncode == 0


def serial(source: X509Source) -> int:
    return source.get_x509_context().default_svid.leaf.serial_number


def test_kill_9_of_both_at_once_and_everything_is_found_again(start_up: Start) -> None:
    up = start_up("--svid-ttl", "40s", "--rate", "20")
    tester = admit(up, "/tester")
    os.kill(up.ready["pids"]["ca"], signal.SIGKILL)
    killed_and_back(up, "agent")
    wait_until(lambda: tester in up.livery("svid", "x509", "fetch", "-o", "name").stdout, 40, "an SVID again")
    up.catch_up()
    up.wait_for_calls("allowed", 20)


# A node that joined by token


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A CA's home; what was started from it is stopped."""
    made = ca_home(tmp_path)
    yield made
    made.stop()


def test_a_node_that_joined_by_token_comes_back_without_another(home: Home) -> None:
    """Its token is spent; what it needs to come back is on its disk."""
    home.start("ca").up()
    agent = join_by_token(home)
    (before,) = json.loads(home.admin("node", "list", "-o", "json").stdout)
    agent.kill()
    home.start("agent").up()
    (after,) = json.loads(home.admin("node", "list", "-o", "json").stdout)
    assert (after["id"], after["banned"]) == (before["id"], False)
    wait_until(lambda: home.workload("svid", "x509", "fetch").returncode == 0, 30, "an SVID from the agent again")
