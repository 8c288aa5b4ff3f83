"""The node's memory on disk: the state file and the bundle, private and durable.

Owns: the two files under the state directory and the order in which they are written. Does not own: their content
(`state`, `livery.identity`), the directory's lock (`main`), or the snapshot of workload SVIDs.

Invariant (hazard 22): when `save` returns, key and SVID are on the disk under one name. Its caller uses a new SVID only
then, because that first use makes the CA forget the old one. Nothing is written any more once a save has returned or
was cancelled: the directory's lock is given back after that.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from livery.identity import IdentityError, TrustBundle, TrustDomain
from livery.runtime.completion import whole
from livery.runtime.files import FileMissing, read_private, write_atomic
from livery_agent.errors import StateUnreadable
from livery_agent.node.state import NodeState, decode, encode

STATE_FILE = "node.json"
BUNDLE_FILE = "bundle.json"

_WITHOUT_STATE = "the node then attests again from the start"
_WITHOUT_BUNDLE = "the node then knows the CA by trust_bundle_path"


class Seal:
    """The state directory of one agent."""

    def __init__(self, directory: Path, trust_domain: TrustDomain) -> None:
        self._state = directory / STATE_FILE
        self._bundle = directory / BUNDLE_FILE
        self._trust_domain = trust_domain

    def load(self) -> NodeState:
        """What was saved last, or an empty state. Raises `StateUnreadable` rather than starting over."""
        try:
            return decode(read_private(self._state), self._trust_domain)
        except FileMissing:
            return NodeState(self._trust_domain)
        except StateUnreadable as cause:
            raise _unreadable(self._state, cause, _WITHOUT_STATE) from cause

    async def save(self, state: NodeState) -> None:
        """Replace the state; durable when this returns. Raises `FileNotWritten` with the old state unharmed."""
        await whole(asyncio.to_thread(write_atomic, self._state, encode(state)))

    def load_bundle(self) -> TrustBundle | None:
        """The bundle of our own trust domain as it was last saved, if it ever was."""
        try:
            return TrustBundle.from_jwks(self._trust_domain, read_private(self._bundle))
        except FileMissing:
            return None
        except IdentityError as cause:
            raise _unreadable(self._bundle, cause, _WITHOUT_BUNDLE) from cause

    async def save_bundle(self, bundle: TrustBundle) -> None:
        """Replace the bundle; durable when this returns."""
        await whole(asyncio.to_thread(write_atomic, self._bundle, bundle.to_jwks()))


def _unreadable(path: Path, cause: StateUnreadable | IdentityError, without: str) -> StateUnreadable:
    fix = f"restore {path} from a backup, or move it away: {without}"
    return StateUnreadable(f"{path} cannot be used", why=str(cause), fix=fix)
