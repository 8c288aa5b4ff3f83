"""What tests of the authority share: a trust domain, a clock that stands still, a store on a fresh file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from livery.identity import TrustDomain
from livery_ca.store import Store
from tests.fakes.clock import FakeClock
from tests.unit.ca.house import House, house


@pytest.fixture
def trust_domain() -> TrustDomain:
    return TrustDomain("example.org")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ca.sqlite"


@pytest.fixture
async def store(store_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    opened = await Store.open(store_path, clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def ca(tmp_path: Path, clock: FakeClock) -> AsyncIterator[House]:
    """A running authority of example.org."""
    async with house(tmp_path / "state", clock) as running:
        yield running
