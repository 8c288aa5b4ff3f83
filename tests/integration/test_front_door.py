"""The front door, knocked at by real clients: who gets in, who does not, and why."""

from __future__ import annotations

import os

import grpc.aio

from tests.integration.doors import echo, real_ca, tls_door, unix_door


async def test_the_pid_and_uid_of_a_local_caller_arrive(tmp_path):
    async with unix_door(tmp_path) as room, grpc.aio.insecure_channel(room.door.address) as channel:
        assert await echo(channel) == b"hello"
        (caller,) = room.service.callers
        assert caller.process is not None
        assert (caller.process.pid, caller.process.uid, caller.process.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert caller.identity is None


async def test_callers_with_and_without_a_certificate_come_in_by_one_port(tmp_path):
    ca = real_ca()
    async with (
        tls_door(tmp_path, ca) as room,
        room.dial(ca.issue("/a"), ca.bundle()) as known,
        room.dial(None, ca.bundle()) as stranger,
    ):
        assert await echo(known) == await echo(stranger) == b"hello"
        first, second = room.service.callers
        assert first.identity is not None
        assert str(first.identity.id) == "spiffe://example.org/a"
        assert second.is_anonymous
        assert second.ip == "127.0.0.1"
