"""What every method of node attestation has in common: evidence, a way to challenge, a verdict.

Owns: the Protocol and its values, the two ways an attestor says no. Does not own: any method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from livery.errors import Kind, LiveryError
from livery.identity import Selector, SpiffeId
from livery_ca.store.writes import Write


class AttestationRefused(LiveryError):
    """The evidence does not prove what it claims. The agent of SPIRE gives up on this one."""

    code: ClassVar[str] = "attestation_refused"
    kind: ClassVar[Kind] = Kind.DENIED


class MalformedEvidence(LiveryError):
    """The evidence cannot be read, or is larger than any honest one."""

    code: ClassVar[str] = "malformed_evidence"
    kind: ClassVar[Kind] = Kind.INVALID


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an agent brings: the method's payload, and the SHA-256 of the key (SPKI) that its CSR asks for."""

    payload: bytes = field(repr=False)
    key_hash: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Attested:
    """The verdict. It is void unless `writes` are in the transaction that records the agent's certificate.

    `twins` are names that the same node would have, had it written the same evidence in another way. It is void, too,
    while a node of such a name is known: one that was banned would come back by it.
    """

    agent_id: SpiffeId
    selectors: tuple[Selector, ...] = ()
    can_reattest: bool = False
    writes: tuple[Write, ...] = ()
    twins: tuple[SpiffeId, ...] = ()


Challenge = Callable[[bytes], Awaitable[bytes]]
"""Sends a challenge to the agent and returns its response."""


class NodeAttestor(Protocol):
    """One method of attestation, known on the wire by its `type`."""

    @property
    def type(self) -> str:
        """The name on the wire, and the first segment after `/spire/agent/`."""
        ...

    async def attest(self, evidence: Evidence, challenge: Challenge) -> Attested:
        """Judge the evidence. Raises `AttestationRefused` or `MalformedEvidence`."""
        ...
