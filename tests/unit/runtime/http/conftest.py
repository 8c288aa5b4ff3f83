"""What every test of the HTTP server begins with."""

from __future__ import annotations

import pytest

from tests.unit.runtime.http.http_world import World


@pytest.fixture
async def world() -> World:
    return World()
