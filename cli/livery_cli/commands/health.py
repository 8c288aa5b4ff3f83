"""How a role with an HTTP administration socket is: one question, one exit code.

Owns: reading `/ready`. Does not own: what ready means; each role's documentation says that.
"""

from __future__ import annotations

from datetime import timedelta

from livery_cli.exits import Exit
from livery_cli.peers.client import NotReady, Peer
from livery_cli.peers.unix_http import ask
from livery_cli.terminal.output import Shown, View, one

VIEW = View({"role": "ROLE", "serving": "SERVING", "why": "WHY"}, name="role")


def ask_ready(role: str, peer: Peer, timeout: timedelta) -> Shown:
    """Whether the role is ready, and why not; exit 0 or 1."""
    try:
        ask(peer, "GET", "/ready", timeout=timeout)
    except NotReady as answer:
        return one({"role": role, "serving": False, "why": answer.why}, VIEW, Exit.NO)
    return one({"role": role, "serving": True, "why": None}, VIEW)
