"""Proving this node to the CA: the shape all methods have.

Owns: the Protocol a method implements. Does not own: the conversation that carries the proof (`upstream`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NodeProof:
    """One attempt at proving the node: the opening payload, and the answer to each challenge the CA may set."""

    payload: bytes
    answer: Callable[[bytes], bytes]


class NodeAttestor(Protocol):
    """A way to prove what this node is."""

    @property
    def method(self) -> str:
        """The method's name on the wire, and the segment after `/spire/agent/` in the node's ID."""
        ...

    def prove(self) -> NodeProof:
        """Gather the evidence anew (files may have been replaced since); raises `NodeProofUnavailable`."""
        ...
