"""What is refused is said, and nobody fills the audit trail by being refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from livery.runtime.metrics import Metrics
from livery.runtime.transport.refusals import STRANGERS, Refusals, sender
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock


class World:
    """One door's refusals, and where they go."""

    def __init__(self) -> None:
        self.audit, self.metrics, self.clock = RecordingAudit(), Metrics(), FakeClock()
        self.refusals = Refusals("tcp", self.audit, self.metrics, self.clock)

    def counted(self, reason: str) -> float:
        name = f'livery_door_refusals_total{{door="tcp",reason="{reason}"}} '
        (line,) = [each for each in self.metrics.render().decode().splitlines() if each.startswith(name)]
        return float(line.removeprefix(name))


def test_a_holder_is_recorded_up_to_a_rate_and_counted_beyond_it() -> None:
    world = World()
    for _ in range(25):
        world.refusals.tell_bounded("192.0.2.1", "certificate_refused", "unknown", address="192.0.2.1:1")
    assert len(world.audit.events) == 10
    assert world.counted("certificate_refused") == 25
    world.clock.advance(timedelta(seconds=1))
    world.refusals.tell_bounded("192.0.2.1", "certificate_refused", "unknown", address="192.0.2.1:1")
    world.refusals.tell_bounded("192.0.2.1", "certificate_refused", "unknown", address="192.0.2.1:1")
    assert [event.get("left_out") for event in world.audit.events[-2:]] == [15, None]


def test_one_holder_or_reason_does_not_hide_another() -> None:
    world = World()
    for _ in range(50):
        world.refusals.tell_bounded("192.0.2.1", "certificate_refused", "unknown")
    world.refusals.tell_bounded("192.0.2.2", "certificate_refused", "expired")
    world.refusals.tell_bounded("192.0.2.1", "tls_failed", "not TLS")
    assert [event["why"] for event in world.audit.events[10:]] == ["expired", "not TLS"]


def test_who_is_known_is_always_recorded() -> None:
    world = World()
    for _ in range(50):
        world.refusals.tell("not_admitted", "it is not of example.org")
        world.refusals.tell_closed("identity_expired", "it ended")
    assert len(world.audit.events) == 100


def test_what_is_remembered_of_holders_is_bounded() -> None:
    world = World()
    for number in range(2000):
        for _ in range(11):
            world.refusals.tell_bounded(f"holder {number}", "certificate_refused", "unknown")
    assert len(world.refusals._left_out) == 1024


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1:1", "192.0.2.1:2"),
        ("[2001:db8::1]:1", "[2001:db8::ffff:1]:2"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1:1"),
    ],
)
def test_a_sender_is_an_address_without_its_port_and_a_whole_network_of_ipv6(one: str, other: str) -> None:
    assert sender(one) == sender(other) != sender("192.0.2.77:1")


def test_a_refusal_that_cannot_be_recorded_is_one_all_the_same() -> None:
    world = World()
    world.audit.broken = True
    world.refusals.tell_bounded(STRANGERS, "tls_failed", "not TLS")
    assert world.counted("tls_failed") == 1
