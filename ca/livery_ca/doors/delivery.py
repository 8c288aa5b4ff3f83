"""The Delivery service: which agents have been given their entries as they are since a change.

Owns: `livery.v1.Delivery`, and which agents are live. Does not own: what each was given (`entries.deliveries`).

Invariant: an agent is said to have a change only after an answer that knew it was given in full, to the certificate
that the agent has now.
"""

# ruff: noqa: N802, ARG002 - methods and parameters are the wire's
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from grpc.aio import ServicerContext

from livery.runtime.clock import Clock
from livery.runtime.spire_types import spiffe_id_to_wire
from livery.wire import livery_api
from livery_ca.doors.refusals import InvalidArgument, failing
from livery_ca.entries.catalog import Feed
from livery_ca.entries.deliveries import Deliveries
from livery_ca.model import Node, NodeFilter
from livery_ca.store.nodes import Nodes

Context = ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class DeliveryDoor(livery_api.DeliveryServicer):
    """Answers for what agents have been given."""

    nodes: Nodes
    feed: Feed
    deliveries: Deliveries
    clock: Clock

    async def GetDelivery(
        self, request: livery_api.GetDeliveryRequest, context: Context
    ) -> livery_api.GetDeliveryResponse:
        """Every live agent, and whether it has the change."""
        if request.sequence < 0:
            raise InvalidArgument("sequence is negative")
        latest = self.feed.latest
        wanted = request.sequence or latest
        with failing("failed to list agents"):
            nodes = (await self.nodes.list(NodeFilter(banned=False))).items
        now = self.clock.now()
        agents = [self._delivery(node, wanted) for node in nodes if _is_live(node, now)]
        return livery_api.GetDeliveryResponse(latest_sequence=latest, agents=agents)

    def _delivery(self, node: Node, wanted: int) -> livery_api.AgentDelivery:
        position = self.deliveries.position(node)
        return livery_api.AgentDelivery(id=spiffe_id_to_wire(node.id), sequence=position, has_it=position >= wanted)


def _is_live(node: Node, at: datetime) -> bool:
    """Whether the node may call with a certificate it has, or was given to use next."""
    return at < max(node.serial_expires_at, node.new_expires_at or node.serial_expires_at)
