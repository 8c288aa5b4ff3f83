"""Attested nodes: attestation, the two serials, banning, listing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from livery_ca.model import Match, NodeFilter, Outcome, Page, SelectorMatch
from livery_ca.store import Store
from livery_ca.store.errors import NodeBanned, NodeKnown, NodeNotFound
from livery_ca.store.journal import Settlement
from livery_ca.store.writes import AttestNode, RefuseKnown, RenewNode
from tests.fakes.clock import START
from tests.unit.ca.store.values import entry, intent, node, selectors, sid


async def test_a_node_comes_back_as_it_attested(store: Store) -> None:
    made = node("n", "x509pop:subject:cn:a", "x509pop:ca:fingerprint:00")
    await store.nodes.attest(made)
    assert await store.nodes.get(made.id) == replace(made, selectors=tuple(sorted(made.selectors)))
    assert await store.nodes.get(sid("/spire/agent/other")) is None


async def test_attesting_again_replaces_serials_and_selectors_and_keeps_what_the_agent_reported(store: Store) -> None:
    """The previous SVID ends at once, its successor in waiting too."""
    made = node("n", "a:1", "a:2", serial="1", new_serial="2", new_expires_at=START)
    await store.nodes.attest(made)
    await store.nodes.report(made.id, "1.2.3", 7)
    await store.nodes.attest(node("n", "a:3", serial="9"))
    found = await store.nodes.get(made.id)
    assert found == node("n", "a:3", serial="9", agent_version="1.2.3", bundle_sequence=7)


async def test_a_new_serial_becomes_the_current_one_at_its_first_use_and_only_then(store: Store) -> None:
    """The old one stays acceptable until then; afterwards it is neither of the two."""
    later = START + timedelta(hours=2)
    made = node("n", serial="1", new_serial="2", new_expires_at=later)
    await store.nodes.attest(made)
    assert not await store.nodes.promote(made.id, "3")
    assert not await store.nodes.promote(made.id, "1")
    assert await store.nodes.promote(made.id, "2")
    assert not await store.nodes.promote(made.id, "2")
    found = await store.nodes.get(made.id)
    assert found is not None
    assert (found.serial, found.serial_expires_at, found.new_serial, found.new_expires_at) == ("2", later, "", None)


async def test_an_empty_serial_promotes_nothing(store: Store) -> None:
    """A node without a renewal under way has no new serial, and "" is not one."""
    made = node("n", serial="1")
    await store.nodes.attest(made)
    assert not await store.nodes.promote(made.id, "")
    assert await store.nodes.get(made.id) == made


async def test_a_banned_node_has_no_serial_and_cannot_attest(store: Store) -> None:
    made = node("n", "a:1", serial="1", new_serial="2", new_expires_at=START)
    await store.nodes.attest(made)
    await store.nodes.ban(made.id)
    found = await store.nodes.get(made.id)
    assert found is not None
    assert found.banned
    with pytest.raises(NodeBanned):
        await store.nodes.attest(made)
    assert not await store.nodes.promote(made.id, "2")


async def test_of_two_names_of_one_node_the_first_to_be_recorded_stays(store: Store) -> None:
    """Both looked before either was there, and both are in one group."""
    one, other, third = (node(name, serial=name) for name in ("1", "2", "3"))
    made = await store.journal.append([intent(i) for i in (1, 2, 3, 4)])
    names = [(one, other), (other, one), (one, third), (third, one)]
    settled = [
        Settlement(each.index, Outcome.ISSUED, START, writes=(RefuseKnown((twin.id,)), AttestNode(itself)))
        for each, (itself, twin) in zip(made, names, strict=True)
    ]
    refusals = await store.journal.settle(settled[:2])
    assert refusals[0] is None
    assert isinstance(refusals[1], NodeKnown)
    assert refusals[1].id == one.id
    assert await store.journal.settle(settled[2:3]) == [None], "itself is no other"
    await store.nodes.ban(one.id)
    (refusal,) = await store.journal.settle(settled[3:])
    assert isinstance(refusal, NodeBanned)
    assert [kept.id for kept in (await store.nodes.list()).items] == [one.id]


async def test_a_node_that_is_banned_or_gone_while_its_renewal_is_signed_gets_nothing(store: Store) -> None:
    """The look at the node came before; the transaction of the record decides."""
    made = node("n", serial="1")
    await store.nodes.attest(made)
    await store.nodes.ban(made.id)
    (first, second) = await store.journal.append([intent(1), intent(2)])
    renewals = [RenewNode(made.id, "1", START), RenewNode(sid("/spire/agent/gone"), "2", START)]
    settled = [
        Settlement(each.index, Outcome.ISSUED, START, writes=(renewal,))
        for each, renewal in zip((first, second), renewals, strict=True)
    ]
    refusals = await store.journal.settle(settled)
    assert [type(refusal) for refusal in refusals] == [NodeBanned, NodeNotFound]
    found = await store.nodes.get(made.id)
    assert found is not None
    assert found.banned
    assert [each.outcome for each in (await store.journal.list()).items] == [Outcome.WITHHELD, Outcome.WITHHELD]


async def test_a_deleted_node_loses_its_alias_and_may_attest_anew(store: Store) -> None:
    """The entry a join token made for the agent goes with it; the entries of its workloads stay."""
    made = node("n")
    await store.nodes.attest(made)
    await store.entries.create(entry("alias", f"spiffe_id:{made.id}", parent_id=made.id))
    await store.entries.create(entry("workload", "unix:uid:1", parent_id=made.id))
    await store.entries.create(entry("other-alias", "spiffe_id:x", parent_id=sid("/spire/agent/m")))
    await store.nodes.ban(made.id)
    await store.nodes.delete(made.id)
    assert await store.nodes.get(made.id) is None
    assert [e.id for e in (await store.entries.list()).items] == ["workload", "other-alias"]
    await store.nodes.attest(made)


@pytest.mark.parametrize("verb", ["ban", "delete"])
async def test_acting_on_an_unknown_node_is_not_found(store: Store, verb: str) -> None:
    with pytest.raises(NodeNotFound):
        await getattr(store.nodes, verb)(sid("/spire/agent/n"))


async def test_reporting_as_an_unknown_node_is_not_found_and_any_64_bit_sequence_is_borne(store: Store) -> None:
    with pytest.raises(NodeNotFound):
        await store.nodes.report(sid("/spire/agent/n"), "1", None)
    made = node("n")
    await store.nodes.attest(made)
    await store.nodes.report(made.id, "1", 2**64 - 1)


async def test_nodes_are_listed_by_page_and_filter(store: Store) -> None:
    await store.nodes.attest(node("a", "k:1", "k:2"))
    await store.nodes.attest(node("b", "k:1", attestation_type="join_token", can_reattest=False))
    await store.nodes.attest(node("c", serial_expires_at=START - timedelta(hours=1)))
    await store.nodes.ban(sid("/spire/agent/c"))

    async def names(wanted: NodeFilter) -> list[str]:
        found = [n.id.segments[-1] for n in (await store.nodes.list(wanted)).items]
        assert await store.nodes.count(wanted) == len(found)
        return found

    assert await names(NodeFilter()) == ["a", "b", "c"]
    assert await names(NodeFilter(attestation_type="join_token")) == ["b"]
    assert await names(NodeFilter(can_reattest=True)) == ["a", "c"]
    assert await names(NodeFilter(banned=True)) == ["c"]
    assert await names(NodeFilter(banned=False)) == ["a", "b"]
    assert await names(NodeFilter(expires_before=START)) == ["c"]
    exact = SelectorMatch(frozenset(selectors("k:1")), Match.EXACT)
    assert await names(NodeFilter(selectors=exact)) == ["b"]
    subset = SelectorMatch(frozenset(selectors("k:1", "k:9")), Match.SUBSET)
    assert await names(NodeFilter(selectors=subset)) == ["b"]  # a node without selectors matches nothing
    page = await store.nodes.list(page=Page(2))
    assert [n.selectors for n in page.items] == [selectors("k:1", "k:2"), selectors("k:1")]
    assert page.last_row is not None
    rest = await store.nodes.list(page=Page(2, page.last_row))
    assert [n.id for n in rest.items] == [sid("/spire/agent/c")]
