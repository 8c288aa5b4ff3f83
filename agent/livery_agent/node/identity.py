"""This node's own identity: getting it, keeping it, renewing it.

Owns: the order of things that must not be mixed up: key on disk → request → SVID accepted → key and SVID on disk →
connection swapped → first use. Does not own: when that happens and what follows from a failure (`keeper`), or files
(`seal`).

Invariants (hazards 22, 23): no request leaves before its key is on disk; no SVID is used before it is; the old
connection is gone before the new SVID's first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from livery.identity import BundleMap, TrustBundle, TrustDomain, X509Svid
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery_agent.attest.node.attestor import NodeAttestor
from livery_agent.node.keys import new_key, request
from livery_agent.node.seal import Seal
from livery_agent.node.state import NodeState, NodeSvid
from livery_agent.schedule import Renewal, draw_jitter
from livery_agent.upstream import Upstream
from livery_agent.upstream.acceptance import Moment, accept, require_agent_id
from livery_agent.upstream.connection import CaConnection
from livery_agent.upstream.joining import Issued, JoinRequest

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a node's identity works with."""

    trust_domain: TrustDomain
    seal: Seal
    upstream: Upstream
    connection: CaConnection
    attestor: NodeAttestor
    clock: Clock
    random: Callable[[], float]


class Node:
    """The SVID of this node and its life. Not for use by two tasks at once; the keeper's alone."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._state = NodeState(parts.trust_domain)

    @property
    def svid(self) -> X509Svid | None:
        """The SVID in use."""
        return self._state.node.svid if self._state.node else None

    @property
    def renewal(self) -> Renewal | None:
        """Its times."""
        return self._state.node.renewal if self._state.node else None

    @property
    def may_reattest(self) -> bool:
        """Whether the CA said that this node can attest again by itself."""
        return self._state.node is not None and self._state.node.reattestable

    def is_alive(self, now: datetime) -> bool:
        """Whether there is an SVID that has not expired."""
        return self.renewal is not None and not self.renewal.is_over(now)

    async def resume(self) -> bool:
        """Take up the identity on disk, if there is one that is still valid; whether there was."""
        self._state = self._parts.seal.load()
        node, now = self._state.node, self._parts.clock.now()
        if node is None:
            return False
        # Also one that has ended: a machine may start with a clock that is set right a moment later.
        await self._parts.connection.swap(node.svid)
        if node.renewal.is_over(now):
            ended = node.renewal.expires_at.isoformat()
            log.warning("this node's identity has ended, by this node's clock", ended_at=ended, now=now.isoformat())
            return False
        log.info("resumed this node's identity", spiffe_id=str(node.svid.id), until=node.renewal.expires_at.isoformat())
        return True

    async def attest(self, trusted: TrustBundle | None) -> TrustBundle:
        """Prove this node to the CA and take the identity it gives; returns the CA's bundle, kept on disk already."""
        key, method = await self._next_key(), self._parts.attestor.method
        proof = self._parts.attestor.prove()
        with self._parts.connection.awaiting_another():
            joined = await self._parts.upstream.join(JoinRequest(method, proof, request(key)), trusted)
            svid = self._accept(joined.issued, key, joined.bundle)
            await self._parts.seal.save_bundle(joined.bundle)
            await self._take(replace(svid, reattestable=joined.reattestable))
        log.info("attested this node", spiffe_id=str(svid.svid.id), method=method)
        return joined.bundle

    async def renew(self, bundle: TrustBundle) -> None:
        """Replace the SVID by a new one with a new key, without attesting again."""
        key = await self._next_key()
        issued = await self._parts.upstream.renew(request(key))
        await self._take(self._accept(issued, key, bundle))
        log.info("renewed this node's identity", serial=f"{issued.chain[0].serial_number:x}")

    async def forget(self) -> None:
        """Drop the SVID from disk, so that the next start attests anew. The connection is closed.

        The key of a request under way stays: a token may be bound to it already, and is worth nothing to another.
        """
        await self._save(replace(self._state, node=None))
        await self._parts.connection.close()

    async def _next_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of the request to come, on disk; the same one again after an attempt whose outcome is unknown."""
        if self._state.next_key is None:
            await self._save(replace(self._state, next_key=new_key()))
        assert self._state.next_key is not None
        return self._state.next_key

    def _accept(self, issued: Issued, key: ec.EllipticCurvePrivateKey, bundle: TrustBundle) -> NodeSvid:
        require_agent_id(issued.id, self._parts.trust_domain)
        moment = Moment(BundleMap.of(bundle), self._parts.clock.now(), draw_jitter(self._parts.random))
        accepted = accept(issued, key, issued.id, moment)
        return NodeSvid(accepted.svid, accepted.renewal, self.may_reattest)

    async def _take(self, node: NodeSvid) -> None:
        await self._save(NodeState(self._parts.trust_domain, node))
        await self._parts.connection.swap(node.svid)

    async def _save(self, state: NodeState) -> None:
        await self._parts.seal.save(state)
        self._state = state
