"""A clock an hour off: it is said, nobody takes or gives an SVID of the wrong time, and all is well afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.roles import Home, ca_home, join_by_token
from tests.e2e.running import wait_until
from tests.faults.witness import open_stream

HOUR = 3600.0
TESTER = "spiffe://faults.test/tester"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A CA's home; what was started from it is stopped."""
    made = ca_home(tmp_path)
    yield made
    made.stop()


def pinned(home: Home) -> None:
    """Keep the port that the CA took, so that agents find it after a restart."""
    home.set("ca", listen_port=int(home.started[-1].ready["address"].rpartition(":")[2]))


def test_an_agent_takes_no_svid_of_a_ca_that_is_an_hour_ahead(home: Home) -> None:
    """It does not even speak to a CA whose certificate is not valid yet; it says so, and serves what it has."""
    ca = home.start("ca").up()
    pinned(home)
    agent = join_by_token(home, svid_ttl="2m")
    with open_stream(f"unix:{home.workload_socket}", TESTER) as stream:
        ca.kill()
        ahead = home.start_skewed("ca", HOUR).up()
        wait_until(lambda: "not yet valid" in home.inspect().stdout, 60, "the agent says that clocks differ")
        assert home.workload("svid", "x509", "fetch", "-o", "name").stdout.split() == [TESTER]
        assert stream.ended is None
        now = datetime.now(UTC)
        assert all(leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc for leaf in stream.leaves)
    assert ahead.process.poll() is None
    assert agent.process.poll() is None


def test_a_ca_that_is_an_hour_behind_what_it_wrote_issues_nothing_and_says_so(home: Home) -> None:
    """It tells by how much, and starts again once its clock is right."""
    ca = home.start("ca").up()
    pinned(home)
    assert home.admin("mint", "x509", TESTER).returncode == 0
    ca.kill()
    behind = home.start_skewed("ca", -HOUR)
    assert behind.end() in (3, 4)
    assert "clock" in behind.error["what"]
    assert "s behind" in behind.error["why"]
    assert "set the clock" in behind.error["fix"]
    home.start("ca").up()
    assert home.admin("mint", "x509", TESTER).returncode == 0


def test_an_agent_an_hour_ahead_serves_nothing_that_has_ended_and_says_why(home: Home) -> None:
    """By its clock everything has ended, the CA's certificate too. Nothing is lost: with the right clock it serves."""
    home.set("ca", agent_svid_ttl="30m", default_x509_svid_ttl="30m")
    home.start("ca").up()
    agent = join_by_token(home)
    agent.kill()
    ahead = home.start_skewed("agent", HOUR)
    fetched = home.workload("svid", "x509", "fetch", "--timeout", "3s")
    assert fetched.returncode != 0, fetched.stdout
    assert "this node's identity has ended, by this node's clock" in ahead.told()
    assert home.admin("node", "list").returncode == 0  # a good neighbour of the CA is served
    assert ahead.stop() == 0
    home.start("agent").up()
    wait_until(lambda: home.workload("svid", "x509", "fetch").returncode == 0, 30, "an SVID with the right clock")
