"""Finding out what a calling process is: the shape all methods have, and their sum.

Owns: the Protocol a method implements, and `WorkloadAttestation`, which asks all methods at once.
Does not own: what the selectors entitle to (`identities`).

Invariants: selectors are of the process behind the pidfd or of nobody; if no method could say anything, that is an
error and not an empty set; a process that changed while it was looked at gets no selectors at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from livery.errors import LiveryError
from livery.identity import Selector
from livery.runtime.caller import PeerProcess
from livery.runtime.logging import get_logger
from livery_agent.errors import WorkloadChanged, WorkloadUnattested

log = get_logger(__name__)


class WorkloadAttestor(Protocol):
    """A way to learn selectors of a process of this machine."""

    @property
    def method(self) -> str:
        """The type of its selectors."""
        ...

    async def attest(self, process: PeerProcess) -> frozenset[Selector]:
        """What is true of the process; raises `WorkloadUnattested` if nothing can be said."""
        ...


@dataclass(frozen=True, slots=True)
class WorkloadAttestation:
    """All methods together, each given the same time."""

    attestors: Sequence[WorkloadAttestor]
    timeout: timedelta = timedelta(seconds=10)

    async def selectors(self, process: PeerProcess) -> frozenset[Selector]:
        """The union of what the methods found; one that fails takes nothing from the others."""
        found = await asyncio.gather(*(self._ask(attestor, process) for attestor in self.attestors))
        answers = [answer for answer in found if answer is not None]
        if not answers:
            raise WorkloadUnattested("workload attestation failed", why="no method could say who is calling")
        return frozenset().union(*answers)

    async def _ask(self, attestor: WorkloadAttestor, process: PeerProcess) -> frozenset[Selector] | None:
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                return await attestor.attest(process)
        except WorkloadChanged:
            raise
        except (LiveryError, TimeoutError, OSError) as error:
            log.warning("a workload attestor failed", method=attestor.method, pid=process.pid, error=repr(error))
            return None
