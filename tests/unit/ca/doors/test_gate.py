"""The guard in front of every method: the order of look-ups, promotion, denial and its audit line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from livery.identity import SpiffeId
from livery.runtime.caller import Caller, NoCaller, calling
from livery.runtime.front_door.calls import Call
from livery.wire import types_api
from livery_ca.doors.guard.gate import CallDenied, Gate, admission_of
from livery_ca.doors.guard.rights import Class
from livery_ca.doors.refusals import Failed
from livery_ca.model import Entry, EntryFilter, Listing, Node, Page
from livery_ca.store.errors import StoreUnavailable
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock
from tests.unit.ca.doors.values import a_node, a_svid, an_entry, an_id, local, over_tcp

SERVER = "/spire.api.server."
BAN = f"{SERVER}agent.v1.Agent/BanAgent"
RENEW = f"{SERVER}agent.v1.Agent/RenewAgent"
GET_BUNDLE = f"{SERVER}bundle.v1.Bundle/GetBundle"
FEDERATED = f"{SERVER}bundle.v1.Bundle/GetFederatedBundle"
PUBLISH = f"{SERVER}bundle.v1.Bundle/PublishJWTAuthority"
DEBUG = f"{SERVER}debug.v1.Debug/GetInfo"
AGENT = "/spire/agent/x509pop/one"
WHY = types_api.PermissionDeniedDetails


class NodeRows:
    """Nodes in a dictionary; `broken` makes every look fail."""

    def __init__(self, *nodes: Node) -> None:
        self.by_id = {node.id: node for node in nodes}
        self.broken = False
        self.gone_before_promotion = False

    async def get(self, node_id: SpiffeId) -> Node | None:
        if self.broken:
            raise StoreUnavailable("the store did not answer")
        return self.by_id.get(node_id)

    async def promote(self, node_id: SpiffeId, serial: str) -> bool:
        if self.gone_before_promotion:
            self.by_id[node_id] = replace(self.by_id[node_id], serial="", new_serial="")
        node = self.by_id[node_id]
        if node.new_serial != serial:
            return False
        self.by_id[node_id] = replace(node, serial=serial, new_serial="")
        return True


class EntryRows:
    """Entries in a list; counts the look-ups."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = entries
        self.looks = 0

    async def list(self, wanted: EntryFilter, page: Page) -> Listing[Entry]:
        self.looks += 1
        return Listing(tuple(each for each in self.entries if each.spiffe_id == wanted.spiffe_id), 1)


class Scene:
    """A gate with its collaborators."""

    def __init__(self, *rows: Node | Entry, admin_ids: tuple[SpiffeId, ...] = ()) -> None:
        self.nodes = NodeRows(*(row for row in rows if isinstance(row, Node)))
        self.entries = EntryRows(*(row for row in rows if isinstance(row, Entry)))
        self.audit = RecordingAudit()
        self.gate = Gate(self.nodes, self.entries, admin_ids, FakeClock(), self.audit)

    async def standing(self, method: str, caller: Caller) -> Class:
        return (await self.gate.admit(method, caller)).standing

    async def denial(self, method: str, caller: Caller) -> CallDenied:
        with pytest.raises(CallDenied) as denied:
            await self.gate(Call(method, caller, "request-1"))
        return denied.value


async def test_a_stranger_may_ask_for_the_bundle_and_for_nothing_else() -> None:
    scene = Scene()
    assert await scene.standing(GET_BUNDLE, over_tcp()) is Class.ANY
    for method in (BAN, RENEW, FEDERATED, PUBLISH, DEBUG):
        denial = await scene.denial(method, over_tcp())
        assert str(denial) == f"authorization denied for method {method}"
        assert denial.grpc_details == ()


async def test_a_method_that_is_in_no_table_is_denied_to_everybody() -> None:
    scene = Scene(admin_ids=(an_id("/boss"),))
    for caller in (over_tcp(), local(), over_tcp(a_svid("/boss"))):
        await scene.denial("/spire.api.server.agent.v1.Agent/Invented", caller)


async def test_a_local_caller_administers_but_is_no_agent_and_no_downstream() -> None:
    scene = Scene()
    assert await scene.standing(BAN, local()) is Class.LOCAL
    assert await scene.standing(DEBUG, local()) is Class.LOCAL
    await scene.denial(RENEW, local())
    await scene.denial(PUBLISH, local())


async def test_an_administrator_by_configuration_costs_no_look_at_the_entries() -> None:
    scene = Scene(admin_ids=(an_id("/boss"),))
    assert await scene.standing(BAN, over_tcp(a_svid("/boss"))) is Class.ADMIN
    assert scene.entries.looks == 0
    await scene.denial(DEBUG, over_tcp(a_svid("/boss")))


async def test_an_entry_makes_an_administrator_and_its_end_unmakes_one() -> None:
    office = an_entry("a", "/p", "/boss", admin=True)
    scene = Scene(office)
    assert await scene.standing(BAN, over_tcp(a_svid("/boss"))) is Class.ADMIN
    scene.entries.entries = ()
    await scene.denial(BAN, over_tcp(a_svid("/boss")))


async def test_a_downstream_entry_opens_the_downstream_methods_only() -> None:
    scene = Scene(an_entry("a", "/p", "/region", downstream=True))
    assert await scene.standing(PUBLISH, over_tcp(a_svid("/region"))) is Class.DOWNSTREAM
    await scene.denial(BAN, over_tcp(a_svid("/region")))


async def test_an_agent_is_admitted_with_its_node() -> None:
    node = a_node(AGENT, serial="7")
    admission = await Scene(node).gate.admit(RENEW, over_tcp(a_svid(AGENT, 7)))
    assert (admission.standing, admission.node) == (Class.AGENT, node)
    assert admission.asked_by == f"spiffe://example.org{AGENT}"


async def test_an_agent_is_no_administrator() -> None:
    await Scene(a_node(AGENT, serial="7")).denial(BAN, over_tcp(a_svid(AGENT, 7)))


async def test_an_agents_name_on_a_unix_socket_is_not_an_agents_certificate() -> None:
    caller = replace(local(), identity=a_svid(AGENT, 7))
    await Scene(a_node(AGENT, serial="7")).denial(RENEW, caller)


async def test_a_workload_that_calls_as_an_agent_learns_that_it_is_not_attested() -> None:
    denial = await Scene().denial(RENEW, over_tcp(a_svid("/web")))
    assert [each.reason for each in denial.grpc_details] == [WHY.AGENT_NOT_ATTESTED]


async def test_the_first_use_of_a_renewed_certificate_ends_the_old_one() -> None:
    scene = Scene(a_node(AGENT, serial="7", new_serial="8"))
    assert await scene.standing(RENEW, over_tcp(a_svid(AGENT, 7))) is Class.AGENT
    assert await scene.standing(RENEW, over_tcp(a_svid(AGENT, 8))) is Class.AGENT
    denial = await scene.denial(RENEW, over_tcp(a_svid(AGENT, 7)))
    assert [each.reason for each in denial.grpc_details] == [WHY.AGENT_NOT_ACTIVE]
    assert 'expected to have serial number "8"; has "7"' in denial.because


async def test_of_two_first_uses_at_once_both_are_served() -> None:
    """The second to promote finds it done: its serial is the current one by then."""
    scene = Scene(a_node(AGENT, serial="7", new_serial="8"))
    stale = scene.nodes.by_id.copy()
    await scene.standing(RENEW, over_tcp(a_svid(AGENT, 8)))
    current = dict(scene.nodes.by_id)
    looks = iter([stale, current])

    async def get(node_id: SpiffeId) -> Node | None:
        return next(looks)[node_id]

    scene.nodes.get = get  # type: ignore[method-assign]  # what the slower of two calls sees
    assert await scene.standing(RENEW, over_tcp(a_svid(AGENT, 8))) is Class.AGENT


async def test_a_ban_that_falls_between_the_look_and_the_promotion_is_obeyed() -> None:
    scene = Scene(a_node(AGENT, serial="7", new_serial="8"))
    scene.nodes.gone_before_promotion = True
    denial = await scene.denial(RENEW, over_tcp(a_svid(AGENT, 8)))
    assert [each.reason for each in denial.grpc_details] == [WHY.AGENT_BANNED]


async def test_a_store_that_is_away_is_our_fault_and_admits_nobody() -> None:
    scene = Scene(a_node(AGENT, serial="7"))
    scene.nodes.broken = True
    with pytest.raises(Failed, match="unable to look up agent information: the store did not answer"):
        await scene.gate.admit(RENEW, over_tcp(a_svid(AGENT, 7)))


async def test_a_denial_is_audited_with_the_reason_that_the_caller_does_not_learn() -> None:
    scene = Scene(a_node(AGENT, serial="9"))
    denial = await scene.denial(RENEW, over_tcp(a_svid(AGENT, 7)))
    (event,) = scene.audit.of("call.authorize")
    assert event["outcome"] == "denied"
    assert "expected to have serial number" in str(event["why"])
    assert "serial" not in str(denial)
    assert (event["caller"], event["address"]) == (f"spiffe://example.org{AGENT}", "192.0.2.7:4711")


async def test_who_is_asked_for_again_within_a_call_and_denied_is_audited_too() -> None:
    scene = Scene(a_node(AGENT, serial="7"))
    await scene.gate.admit(RENEW, over_tcp(a_svid(AGENT, 7)))
    scene.nodes.by_id.clear()
    with pytest.raises(CallDenied):
        await scene.gate.admit(RENEW, over_tcp(a_svid(AGENT, 7)))
    (event,) = scene.audit.of("call.authorize")
    assert (event["outcome"], event["method"]) == ("denied", RENEW)
    assert "is not attested" in str(event["why"])


async def test_an_admitted_call_is_noted_and_is_not_audited() -> None:
    scene = Scene()
    call = Call(BAN, local(), "request-1")
    await scene.gate(call)
    assert call.notes["authorized_as"] == "local"
    assert scene.audit.events == []


class Context:
    """The one thing of a gRPC context that is looked at."""

    def __init__(self, connection: str) -> None:
        self.connection = connection

    def peer(self) -> str:
        return f"unix:{self.connection}"


async def test_a_handler_sees_the_admission_of_its_own_call_only() -> None:
    scene, caller = Scene(), local()
    await scene.gate(Call(BAN, caller, "request-1"))
    with calling(caller):
        assert admission_of(Context(caller.connection)).standing is Class.LOCAL
    other: Any = replace(caller, connection="connection-9")
    with calling(other), pytest.raises(NoCaller):
        admission_of(Context("connection-9"))
