"""A handler learns who calls, and only of its own connection."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from livery.runtime.caller import Caller, NoCaller, PeerProcess, caller_of, calling


@dataclass
class Context:
    name: str

    def peer(self) -> str:
        return self.name


def test_a_call_finds_the_caller_of_its_connection_through_grpcs_percent_encoding():
    caller = Caller("/run/a b%/lv1/2", "127.0.0.1:4711")
    with calling(caller):
        assert caller_of(Context("unix:%2Frun%2Fa%20b%25%2Flv1%2F2")) is caller


@pytest.mark.parametrize("peer", ["unix:", "unix:/run/2", "ipv4:127.0.0.1:1", ""])
def test_a_call_of_another_connection_has_no_caller(peer):
    with calling(Caller("/run/1", "unix")), pytest.raises(NoCaller):
        caller_of(Context(peer))


def test_outside_of_a_call_there_is_no_caller():
    with calling(Caller("/run/1", "unix")):
        pass
    with pytest.raises(NoCaller):
        caller_of(Context("unix:/run/1"))


@pytest.mark.parametrize(("address", "ip"), [("127.0.0.1:1", "127.0.0.1"), ("[::1]:1", "::1"), ("unix", None)])
def test_the_ip_is_the_address_without_its_port(address, ip):
    assert Caller("c", address).ip == ip


def test_a_caller_says_who_it_is_in_one_word():
    process = PeerProcess(pid=7, uid=1000, gid=1000, pidfd=-1, start_time=1)
    assert Caller("c", "unix", process=process).describe() == "uid:1000/pid:7"
    assert Caller("c", "127.0.0.1:1").describe() == "anonymous"


def test_only_who_showed_nothing_is_anonymous():
    process = PeerProcess(pid=7, uid=1000, gid=1000, pidfd=-1, start_time=1)
    assert Caller("c", "127.0.0.1:1").is_anonymous
    assert not Caller("c", "unix", process=process).is_anonymous
