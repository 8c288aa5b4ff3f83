"""A connection in the table: who calls on it, when it should turn to a new one, and what it gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from livery.identity import BundleMap, verify_x509
from livery.runtime.caller import Caller, NoCaller, PeerProcess
from livery.runtime.front_door.connection import Connection, ConnectionTable
from livery.runtime.transport.limits import Admission, DoorLimits
from livery.runtime.transport.splice import End
from tests.fakes.clock import FakeClock
from tests.pki import HOUR, NOW, TestCa


@dataclass
class Context:
    name: str

    def peer(self) -> str:
        return f"unix:{self.name}"


def connection(caller: Caller, admission: Admission | None = None, **fields: object) -> Connection:
    seat = (admission or Admission(DoorLimits())).seat_stranger("192.0.2.1")
    return replace(Connection(caller, End(1), seat, opened=100.0), **fields)


@pytest.fixture
def known() -> Caller:
    ca = TestCa()
    return Caller("/run/1", "192.0.2.1:1", verify_x509(ca.issue().chain, BundleMap.of(ca.bundle()), NOW))


def test_a_call_finds_its_connection_until_that_is_lost(known):
    table, one = ConnectionTable(), connection(known)
    table.add(one)
    assert table.find(Context("/run/1")) is one
    table.lose(one)
    with pytest.raises(NoCaller, match="has gone"):
        table.find(Context("/run/1"))
    assert len(table) == 0


def test_a_call_that_arrives_while_its_connection_is_being_closed_has_no_caller(known):
    table, one = ConnectionTable(), connection(known)
    table.add(one)
    one.end()
    with pytest.raises(NoCaller, match="is being closed"):
        table.find(Context("/run/1"))


def test_a_lost_connection_gives_its_seat_back_once(known):
    admission = Admission(DoorLimits())
    one = connection(known, admission)
    assert admission.count("connections") == 1
    one.lose()
    one.lose()
    assert admission.count("connections") == 0


def test_a_pidfd_stays_open_while_a_call_still_runs_and_is_closed_after():
    pidfd = os.pidfd_open(os.getpid())
    one = connection(Caller("/run/1", "unix", process=PeerProcess(os.getpid(), 0, 0, pidfd, 0)))
    with one.serving(FakeClock()):
        one.lose()
        assert str(Path(f"/proc/self/fd/{pidfd}").readlink()) == "anon_inode:[pidfd]"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfd)


class TestTurning:
    """In the last quarter of its identity's life a peer is asked, once, for a new connection."""

    TURN = NOW + HOUR * 3 / 4

    def test_at_its_time(self, known):
        one = connection(known, turns_at=self.TURN)
        assert not one.should_turn(self.TURN - timedelta(seconds=1), 200.0)
        assert one.should_turn(self.TURN, 200.0)

    def test_not_while_it_is_so_young_that_it_may_not_have_been_used(self, known):
        one = connection(known, turns_at=self.TURN)
        assert not one.should_turn(self.TURN, 104.0)
        assert one.should_turn(self.TURN, 105.0)

    def test_not_twice(self, known):
        one = connection(known, turns_at=self.TURN)
        one.turn_away(200.0)
        assert not one.should_turn(self.TURN, 300.0)

    def test_not_when_it_would_come_back_in_vain(self, known):
        assert not connection(known, turns_at=self.TURN).should_turn(NOW + 2 * HOUR, 200.0)

    def test_and_never_if_it_began_too_late(self, known):
        assert not connection(known).should_turn(self.TURN, 200.0)

    def test_it_is_spent_a_while_later_when_its_last_call_is_done(self, known):
        one = connection(known, turns_at=self.TURN)
        assert not one.is_spent(300.0)
        one.turn_away(200.0)
        assert not one.is_spent(204.0)
        with one.serving(FakeClock()):
            assert not one.is_spent(300.0)
        assert one.is_spent(300.0)
