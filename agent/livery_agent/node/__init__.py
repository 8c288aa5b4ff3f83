"""This node: its own identity, and what of it outlives the process.

Owns: `identity` (how the node's SVID is got, kept and renewed), `state` and `seal` (what is on disk, and how it comes
there), `keys` (keys made here and the requests for certificates). Does not own: the evidence for attestation
(`attest.node`), when a renewal is due (`schedule`, `keeper`).
"""

from livery_agent.node.identity import Node, NodeParts

__all__ = ["Node", "NodeParts"]
