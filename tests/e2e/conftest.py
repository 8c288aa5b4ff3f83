"""Fixtures of the e2e tests: a state directory that is kept for the secrets check, and a shared running `livery up`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Up
from tests.e2e.workloads import admit


@pytest.fixture
def start_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `livery up` with these arguments; whatever still runs at the end of the test is stopped."""
    started: list[Up] = []

    def start(*arguments: str, state: Path | None = None) -> Up:
        up = Up(state or tmp_path / "state", arguments)
        started.append(up)
        return up.start()

    yield start
    for up in started:
        up.stop()


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One running `livery up`, shared by all tests that only use it, with short-lived SVIDs.

    Its directory can be entered by every user, as one in /run can; pytest's own cannot. When the run is over, what it
    wrote moves to where the search for secrets in logs looks.
    """
    with tempfile.TemporaryDirectory(prefix="livery-e2e-") as directory:
        Path(directory).chmod(0o711)
        running = Up(Path(directory) / "state", ("--svid-ttl", "20s", "--rate", "20")).start()
        yield running
        running.stop()
        kept = tmp_path_factory.mktemp("up") / "state"
        shutil.copytree(running.state, kept, ignore=shutil.ignore_patterns("services", "run"))


@pytest.fixture(scope="session")
def tester(up: Up) -> str:
    """The ID that the program which runs the tests has in the shared run."""
    return admit(up, "/tester")
