"""What the policy server wires itself: who may finish a handshake, where it says it is, and what it watches."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from livery.identity import SpiffeId
from livery_policy.config import PolicyConfig
from livery_policy.main import PolicyServer
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock
from tests.fakes.door_identity import ChangingIdentity
from tests.pki import NOW, TestCa


class Tls:
    """A TLS door that only says where it is, and when its connections were looked at."""

    address = "127.0.0.1:41021"

    def __init__(self) -> None:
        self.looked: asyncio.Queue[datetime] = asyncio.Queue()
        self.clock = FakeClock(NOW)

    async def recheck(self) -> None:
        self.looked.put_nowait(self.clock.now())


class Server:
    """A server that was not opened, with its clock."""

    def __init__(self, directory: Path, *, tls: Tls | None = None, **settings: Any) -> None:
        self.clock = tls.clock if tls is not None else FakeClock(NOW)
        config = PolicyConfig(policy_dir=directory, socket=directory / "api.sock", **settings)
        self.server = PolicyServer(config, self.clock, cast("Any", None), RecordingAudit())
        self.server._tls = cast("Any", tls)


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        ("spiffe://demo.test/pep", True),
        ("spiffe://demo.test/anybody", True),  # to be told 403, and not an alert
        ("spiffe://other.test/pep", True),
        ("spiffe://other.test/anybody", False),
        ("spiffe://other.test/pep/x", False),
        ("spiffe://demo.test.evil.test/pep", False),
    ],
)
def test_our_own_trust_domain_and_who_is_listed_may_finish_a_handshake(tmp_path: Path, peer: str, may: bool) -> None:
    made = Server(tmp_path, admit_ids=("spiffe://demo.test/pep", "spiffe://other.test/pep"))
    admits = made.server._admits(cast("Any", ChangingIdentity.of(TestCa("demo.test"), "/policy")))
    assert admits(SpiffeId.parse(peer)) == (None if may else f"{peer} is not in admit_ids")


@pytest.mark.parametrize(
    ("tls", "public_url", "base"),
    [
        (None, None, None),
        (Tls(), None, "https://localhost:41021"),
        (Tls(), "https://pdp.test/", "https://pdp.test"),
        (None, "https://pdp.test", "https://pdp.test"),  # a proxy of ours speaks TLS for the socket
    ],
)
def test_the_identifier_is_the_configured_one_or_that_of_the_tls_door(
    tmp_path: Path, tls: Tls | None, public_url: str | None, base: str | None
) -> None:
    assert Server(tmp_path, tls=tls, public_url=public_url).server._base_url() == base


async def test_open_connections_are_looked_at_each_second(tmp_path: Path) -> None:
    """An authority that was withdrawn ends them without a request of theirs."""
    tls = Tls()
    made = Server(tmp_path, tls=tls)
    watching = asyncio.create_task(made.server._recheck())
    async with asyncio.timeout(20):
        for seconds in (1, 2, 3):
            await made.clock.sleepers(1)
            made.clock.advance(1.0)
            assert await tls.looked.get() == NOW + timedelta(seconds=seconds)
    watching.cancel()
