"""Who holds how much of a door."""

from __future__ import annotations

import pytest

from livery.runtime.transport.limits import Admission, DoorLimits, OverLimit, address_key


def full(seats, reason):
    with pytest.raises(OverLimit) as caught:
        seats()
    assert caught.value.reason == reason


def test_a_seat_that_is_left_can_be_taken_again_and_leaving_twice_is_leaving_once():
    admission = Admission(DoorLimits(connections=1))
    seat = admission.seat_process(1000)
    full(lambda: admission.seat_process(1001), "connections")
    seat.leave()
    seat.leave()
    admission.seat_process(1001)
    full(lambda: admission.seat_process(1002), "connections")


def test_strangers_never_take_more_than_half_of_a_small_door():
    admission = Admission(DoorLimits(connections=8))
    addresses = iter(f"192.0.2.{number}" for number in range(100))
    for _ in range(2):
        admission.seat_stranger(next(addresses)).become_anonymous()
    shaking = [admission.seat_stranger(next(addresses)) for _ in range(2)]
    full(shaking[0].become_anonymous, "anonymous")
    full(lambda: admission.seat_stranger(next(addresses)), "handshakes")
    assert admission.count("connections") == 4


def test_a_refused_seat_is_not_counted_anywhere():
    admission = Admission(DoorLimits(handshakes=1))
    first = admission.seat_stranger("192.0.2.1")
    full(lambda: admission.seat_stranger("192.0.2.2"), "handshakes")
    first.leave()
    assert [admission.count(bound) for bound in ("connections", "handshakes", "anonymous_per_address")] == [0, 0, 0]


def test_one_address_cannot_take_the_seats_of_another():
    admission = Admission(DoorLimits(anonymous_per_address=2))
    admission.seat_stranger("192.0.2.1").become_anonymous()
    admission.seat_stranger("192.0.2.1")
    full(lambda: admission.seat_stranger("192.0.2.1"), "anonymous_per_address")
    admission.seat_stranger("192.0.2.2")


def test_an_authenticated_peer_frees_its_address_and_its_handshake():
    admission = Admission(DoorLimits(anonymous_per_address=1, handshakes=1, per_identity=2))
    for _ in range(2):
        admission.seat_stranger("192.0.2.1").become_identity("spiffe://example.org/a")
    admission.seat_stranger("192.0.2.1").become_identity("spiffe://example.org/b")
    last = admission.seat_stranger("192.0.2.1")
    full(lambda: last.become_identity("spiffe://example.org/a"), "per_identity")
    assert admission.count("connections") == 4
    last.leave()
    assert admission.count("connections") == 3


def test_anonymous_seats_are_bounded_in_total():
    admission = Admission(DoorLimits(anonymous=1))
    admission.seat_stranger("192.0.2.1").become_anonymous()
    second = admission.seat_stranger("192.0.2.2")
    full(second.become_anonymous, "anonymous")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_who_can_have_an_address_can_have_its_neighbours(one, other, same):
    assert (address_key(one) == address_key(other)) is same


def test_a_door_needs_four_descriptors_for_each_connection():
    assert DoorLimits(connections=100).descriptors == 400


def test_neighbours_of_one_ipv6_network_share_their_places():
    admission = Admission(DoorLimits(connections=64, anonymous_per_address=2))
    for host in ("1", "2"):
        admission.seat_stranger(f"2001:db8::{host}")
    full(lambda: admission.seat_stranger("2001:db8::3"), "anonymous_per_address")
    admission.seat_stranger("2001:db8:0:1::1")
