"""Fixtures of the e2e tests: a state directory that is kept for the secrets check, and a shared running `livery up`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Up


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


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One running `livery up` for the tests of a module, with short-lived SVIDs."""
    running = Up(tmp_path_factory.mktemp("up") / "state", ("--svid-ttl", "20s")).start()
    yield running
    running.stop()
