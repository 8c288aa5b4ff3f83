"""The agent's inside without its doors, on a fake CA and a clock that stands still."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from livery.identity import BundleMap, Selector, SpiffeId, TrustBundle, TrustDomain
from livery_agent.attest.node.attestor import NodeAttestor
from livery_agent.attest.node.join_token import JoinTokenAttestor
from livery_agent.identities.entry import Entry
from livery_agent.identities.jwt_svids import JwtSvids
from livery_agent.identities.snapshot import Snapshot, Snapshots
from livery_agent.inspection.status import Status
from livery_agent.keeper import Keeper, KeeperParts, Terms
from livery_agent.keeper.renewal import Signer
from livery_agent.node import Node, NodeParts
from livery_agent.node.seal import Seal
from livery_agent.upstream import Upstream
from livery_agent.upstream.connection import CaConnection
from tests.fakes.ca import FakeCa, PlainDial
from tests.fakes.clock import FakeClock

UID = Selector.parse("unix:uid:1000")
INTERVAL = timedelta(seconds=5)


def entry(name: str, **fields: Any) -> Entry:
    """An entry for `spiffe://example.org/<name>` and user 1000."""
    return Entry(name, SpiffeId.parse(f"spiffe://example.org/{name}"), frozenset({UID}), **fields)


@dataclass
class Insides:
    """One agent's parts, and the CA they talk to."""

    directory: Path
    clock: FakeClock
    ca: FakeCa
    attestor: NodeAttestor
    trusted: TrustBundle | None = None
    chance: float = 0.5  # what every draw yields: the middle, so no jitter
    dial: PlainDial = field(init=False)
    snapshots: Snapshots = field(init=False)

    def __post_init__(self) -> None:
        self.dial = PlainDial(self.directory / "ca.sock")
        self.assemble()

    def assemble(self) -> None:
        """Build the parts, as a new process on the same state directory does."""
        clock, trust_domain = self.clock, TrustDomain("example.org")
        self.snapshots = Snapshots(Snapshot(trust_domain, BundleMap()))
        self.seal = Seal(self.directory, trust_domain)
        self.connection = CaConnection(self.dial, drain=timedelta(seconds=0.2))
        self.upstream = Upstream(self.connection, self.dial.join, timedelta(seconds=5))
        self.jwt_svids = JwtSvids(self.upstream, 100, clock, self.draw)
        self.status = Status(clock.now())
        self.signer = Signer(self.upstream, clock, self.draw, INTERVAL)
        self.node = Node(
            NodeParts(
                trust_domain=trust_domain,
                seal=self.seal,
                upstream=self.upstream,
                connection=self.connection,
                attestor=self.attestor,
                clock=clock,
                random=self.draw,
            )
        )
        parts = KeeperParts(
            node=self.node,
            upstream=self.upstream,
            connection=self.connection,
            seal=self.seal,
            snapshots=self.snapshots,
            jwt_svids=self.jwt_svids,
            signer=self.signer,
            status=self.status,
            clock=clock,
            random=self.draw,
        )
        self.keeper = Keeper(parts, Terms(self.trusted, INTERVAL, "test"))

    def draw(self) -> float:
        return self.chance

    async def restart(self) -> None:
        """Die and come back: what is not on disk is gone."""
        await self.close()
        self.assemble()
        await self.keeper.resume()

    async def close(self) -> None:
        await self.jwt_svids.close()
        await self.connection.close()

    async def pass_time(self, by: timedelta, step: timedelta = timedelta(seconds=1)) -> None:
        """Let time go on, the keeper looking at it once in every step."""
        end = self.clock.now() + by
        while self.clock.now() < end:
            self.clock.advance(min(step, end - self.clock.now()))
            await self.keeper.step()

    def svid(self, name: str) -> Any:
        return next(i.svid for i in self.snapshots.current.identities if i.entry.id == name)

    def serial(self, name: str) -> int:
        return self.svid(name).serial


@asynccontextmanager
async def insides(
    *entries: Entry, attestor: NodeAttestor | None = None, steps: int = 1, start: bool = True
) -> AsyncIterator[Insides]:
    """An agent's inside that joined by a token and took so many steps; the CA has these entries."""
    directory = Path(tempfile.mkdtemp(prefix="lv"))
    clock = FakeClock()
    ca = FakeCa(clock)
    ca.tokens["a-token"] = None
    ca.add(*entries)
    await ca.start(directory / "ca.sock")
    here = Insides(directory, clock, ca, attestor or JoinTokenAttestor("a-token"), ca.bundle)
    try:
        if start:
            await here.keeper.resume()
            for _ in range(steps):
                await here.keeper.step()
        yield here
    finally:
        await here.close()
        await ca.stop()
        shutil.rmtree(directory)
