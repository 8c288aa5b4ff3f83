"""The guard in front of every method: finds the caller's standing and refuses or admits.

Owns: the order of the look-ups (cheapest first, as SPIRE), the promotion of a renewed certificate at its first use, the
audit line of a denial, and the `Admission` that handlers read. Does not own: the table (`rights`) or connections.

Invariant: a handler runs only after the gate admitted this very call; what is not in the table is denied.
"""

from __future__ import annotations

from collections.abc import Collection
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar, Protocol

from livery.identity import SpiffeId, VerifiedX509Svid
from livery.runtime.audit import Audit
from livery.runtime.caller import Caller, HasPeer, NoCaller, caller_of
from livery.runtime.clock import Clock
from livery.runtime.front_door.calls import Call
from livery.wire import types_api
from livery_ca.doors.guard.rights import RIGHTS, Class, Inactive, agent_standing
from livery_ca.doors.refusals import Denied, failing
from livery_ca.entries.entitlement import is_admin, is_downstream
from livery_ca.model import Entry, EntryFilter, Listing, Node, Page


@dataclass(frozen=True, slots=True)
class Admission:
    """As what a caller was admitted. `node` is set for agents, and is the row the decision was made on."""

    caller: Caller
    standing: Class
    node: Node | None = None

    @property
    def asked_by(self) -> str:
        """The caller's name for journals: its SPIFFE ID, or the local process."""
        return self.caller.describe()


class Nodes(Protocol):
    """What the gate needs of the attested nodes."""

    async def get(self, node_id: SpiffeId) -> Node | None:
        """The node with this SPIFFE ID."""
        ...

    async def promote(self, node_id: SpiffeId, serial: str) -> bool:
        """Make the new serial the current one; says whether it was the new one."""
        ...


class OwnEntries(Protocol):
    """What the gate needs of the entries. Asked anew at each call: who is taken out of office is out at once."""

    async def list(self, wanted: EntryFilter, page: Page) -> Listing[Entry]:
        """One page of the entries that pass the filter."""
        ...


_ADMITTED: ContextVar[Admission | None] = ContextVar("livery_ca_admission", default=None)


def admission_of(context: HasPeer) -> Admission:
    """As what the gate admitted the caller of this call."""
    admission = _ADMITTED.get()
    if admission is None or admission.caller != caller_of(context):
        raise NoCaller("this call was not admitted", why="it did not pass the gate")
    return admission


class CallDenied(Denied):
    """The caller may not call this method. `because` is for the audit log; the caller learns the class of it only."""

    code: ClassVar[str] = "call_denied"

    def __init__(
        self, method: str, because: str, reason: types_api.PermissionDeniedDetails.Reason.ValueType | None = None
    ) -> None:
        super().__init__(f"authorization denied for method {method}", reason=reason)
        self.because = because


class Gate:
    """A guard for front doors (`livery.runtime.front_door.calls.Guard`)."""

    def __init__(
        self, nodes: Nodes, entries: OwnEntries, admin_ids: Collection[SpiffeId], clock: Clock, audit: Audit
    ) -> None:
        self._nodes = nodes
        self._entries = entries
        self._admin_ids = frozenset(admin_ids)
        self._clock = clock
        self._audit = audit

    async def __call__(self, call: Call) -> None:
        """Admit the call or raise `Denied`."""
        admission = await self.admit(call.method, call.caller)
        call.notes["authorized_as"] = (admission.standing.name or "").lower()
        _ADMITTED.set(admission)

    async def admit(self, method: str, caller: Caller) -> Admission:
        """As what the caller may call the method now. A method that serves one call for long asks again meanwhile."""
        try:
            return await self._admit(method, caller)
        except CallDenied as denial:
            who = {"caller": caller.describe(), "address": caller.address}
            self._audit.record("call.authorize", "denied", method=method, why=denial.because, **who)
            raise

    async def _admit(self, method: str, caller: Caller) -> Admission:
        """Find the first class of the method's that the caller is in."""
        allowed = RIGHTS.get(method, Class(0))
        if Class.ANY in allowed:
            return Admission(caller, Class.ANY)
        if Class.LOCAL in allowed and caller.is_local:
            return Admission(caller, Class.LOCAL)
        if caller.identity is not None:
            standing = await self._by_office(allowed, caller.identity)
            if standing is not None:
                return Admission(caller, standing)
            if Class.AGENT in allowed and not caller.is_local:
                return await self._as_agent(method, caller, caller.identity)
        raise CallDenied(method, "the caller is in none of the classes that may call it")

    async def _by_office(self, allowed: Class, svid: VerifiedX509Svid) -> Class | None:
        if Class.ADMIN in allowed and svid.id in self._admin_ids:
            return Class.ADMIN
        if not allowed & (Class.ADMIN | Class.DOWNSTREAM):
            return None
        with failing("failed to fetch caller entries"):
            own = (await self._entries.list(EntryFilter(spiffe_id=svid.id), Page())).items
        at = self._clock.now()
        if Class.ADMIN in allowed and is_admin(own, at):
            return Class.ADMIN
        if Class.DOWNSTREAM in allowed and is_downstream(own, at):
            return Class.DOWNSTREAM
        return None

    async def _as_agent(self, method: str, caller: Caller, svid: VerifiedX509Svid) -> Admission:
        with failing("unable to look up agent information"):
            node = await self._nodes.get(svid.id)
        standing = agent_standing(svid, node, self._clock.now())
        if isinstance(standing, Inactive):
            raise CallDenied(method, standing.text, standing.reason)
        if standing.promote:
            await self._promote(method, svid)
        return Admission(caller, Class.AGENT, standing.node)

    async def _promote(self, method: str, svid: VerifiedX509Svid) -> None:
        """Make a renewed certificate the current one. Of two first uses at once, one promotes and both are current."""
        with failing("unable to activate the new agent SVID"):
            promoted = await self._nodes.promote(svid.id, str(svid.serial))
            node = None if promoted else await self._nodes.get(svid.id)
        if promoted:
            return
        standing = agent_standing(svid, node, self._clock.now())
        if isinstance(standing, Inactive):  # banned, deleted or renewed again since we looked
            raise CallDenied(method, standing.text, standing.reason)
