"""What each agent was given last, and how much of that is remembered."""

from __future__ import annotations

from dataclasses import replace

from livery_ca.entries.deliveries import SPARE, Deliveries
from tests.fakes.clock import START
from tests.unit.ca.doors.values import HOUR, a_node, a_svid, an_id

AGENT = "/spire/agent/x509pop/one"


def test_an_agent_has_what_it_was_given_last() -> None:
    """The last answer, not the greatest position: of two answers that crossed, the agent keeps the later one."""
    deliveries = Deliveries()
    node = a_node(AGENT, serial="7")
    assert deliveries.position(node) == 0
    for position in (5, 9, 8):
        deliveries.note(a_svid(AGENT, 7), position, START)
        assert deliveries.position(node) == position
    assert deliveries.position(a_node("/spire/agent/x509pop/other", serial="7")) == 0


def test_what_was_given_to_another_certificate_of_the_node_does_not_count() -> None:
    deliveries = Deliveries()
    deliveries.note(a_svid(AGENT, 7), 5, START)
    assert deliveries.position(a_node(AGENT, serial="8")) == 0
    assert deliveries.position(a_node(AGENT, serial="7", new_serial="8")) == 5, "renewed, and not used yet"


def test_agents_whose_certificate_has_ended_are_forgotten() -> None:
    deliveries = Deliveries()
    gone, svid = a_svid(AGENT, 7, ttl=HOUR), a_svid(AGENT, 7, ttl=3 * HOUR)
    for number in range(3 * SPARE):
        deliveries.note(replace(gone, id=an_id(f"/spire/agent/x509pop/{number}")), 1, START + 2 * HOUR)
        assert len(deliveries) <= SPARE
    deliveries.note(svid, 4, START + 2 * HOUR)
    assert deliveries.position(a_node(AGENT, serial="7")) == 4
