"""The way through to grpc: what was let in and is lost on the way leaves nothing there."""

from __future__ import annotations

import asyncio
import socket

from livery.runtime.caller import Caller
from livery.runtime.front_door.gate import Gate
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.private_directory import PrivateDirectory
from livery.runtime.transport.refusals import Refusals
from livery.runtime.transport.splice import End
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock


async def test_a_connection_that_is_lost_while_it_is_passed_on_is_not_left_open_behind_the_door(tmp_path):
    directory, clock = PrivateDirectory.create(tmp_path), FakeClock()
    gate = Gate(DoorLimits(), clock, directory, Refusals("unix", RecordingAudit(), Metrics(), clock))
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def behind(reader, writer):
        ended.set_result(await reader.read())
        writer.close()

    ours, theirs = socket.socketpair()
    async with await asyncio.start_unix_server(behind, str(gate.server_path)):
        with theirs:
            _, outer = await asyncio.get_running_loop().create_unix_connection(lambda: End(1024), sock=ours)
            seat = gate.admission.seat_process(0)
            connection = gate.let_in(outer, Caller(gate.new_name(), "unix"), seat)
            await asyncio.sleep(0)  # it has begun to connect, and did not finish
            gate.table.lose(connection)
            async with asyncio.timeout(5):
                assert await ended == b""
            outer.abort()
    await gate.close()
    directory.remove()
