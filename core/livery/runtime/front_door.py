"""The front door of a gRPC server: connections are authenticated first and then spliced to grpcio.

Owns: accepting, authenticating, bounding, splicing and closing connections, and the grpc.aio server behind them. Does
not own: what a caller may do (services and their guards).

Invariants: not one byte of a connection reaches gRPC before its `Caller` exists; a call is answered only on a
connection that is in the table; what was refused has an audit line that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import grpc.aio

from livery.runtime.audit import Audit
from livery.runtime.calls import Guard
from livery.runtime.clock import Clock
from livery.runtime.limits import DoorLimits
from livery.runtime.listen import Listen
from livery.runtime.metrics import Metrics


@dataclass(eq=False)
class FrontDoor:
    """One listening address. `services` add servicers to the server; `guards` are asked before each method runs."""

    listen: Listen
    _: KW_ONLY
    services: Sequence[Callable[[grpc.aio.Server], None]]
    run_dir: Path
    clock: Clock
    audit: Audit
    metrics: Metrics
    limits: DoorLimits = field(default_factory=DoorLimits)
    guards: Sequence[Guard] = ()

    async def start(self) -> None:
        """Listen. Raises `CannotListen` or `PrivateDirectoryError`."""

    async def stop(self, grace: float) -> None:
        """Take no new connections, let calls end for `grace` seconds, close what is left."""

    async def recheck(self) -> None:
        """Close every connection whose chain no longer verifies against the bundles of now, streams included."""

    @property
    def address(self) -> str:
        """Where clients connect: "127.0.0.1:41021" or "unix:/path"."""
        return ""
