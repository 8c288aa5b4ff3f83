"""What `livery up` asks of its own roles while they run: which identities the agent holds, why a call was denied.

Owns: two questions over administration sockets, asked in a thread. A role that is away is no news here: its end is
seen by whoever watches its process.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from livery.errors import LiveryError
from livery.identity import SpiffeId
from livery_cli.peers.client import Peer
from livery_cli.peers.decisions import policy_at, reason_of
from livery_cli.peers.unix_http import ask
from livery_cli.up.board import Identity
from livery_cli.up.layout import Layout

_PATIENCE = timedelta(seconds=2)


class Observer:
    """Asks the agent and the policy server of one `livery up`."""

    def __init__(self, layout: Layout) -> None:
        self._agent = Peer("the agent", f"unix:{layout.agent_socket}", "livery agent run")
        self._policy = policy_at(f"unix:{layout.policy_socket}")

    async def identities(self) -> dict[str, Identity]:
        """The identities the agent holds now, by the path of their ID; nothing if it cannot be asked."""
        try:
            answer = await asyncio.to_thread(ask, self._agent, "GET", "/inspect", timeout=_PATIENCE)
        except LiveryError:
            return {}
        held = answer.body.get("identities", []) if isinstance(answer.body, dict) else []
        return {SpiffeId.parse(each["spiffe_id"]).path[1:]: _identity(each) for each in held if each.get("serial")}

    async def reason(self, decision_id: str) -> str:
        """Why a call was denied, in one sentence; its id if the server cannot be asked."""
        try:
            return await asyncio.to_thread(reason_of, self._policy, decision_id, _PATIENCE)
        except LiveryError:
            return f"decision {decision_id}"


def _identity(each: dict[str, str]) -> Identity:
    renew_at = each.get("renew_at")
    return Identity(
        spiffe_id=each["spiffe_id"],
        serial=each["serial"],
        expires_at=datetime.fromisoformat(each["expires_at"]),
        renew_at=datetime.fromisoformat(renew_at) if renew_at else None,
    )
