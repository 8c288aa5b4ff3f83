"""Closing so that the last bytes arrive, also where nothing can arrive any more."""

from __future__ import annotations

import asyncio
import errno

from livery.runtime.http.connection import linger


class ResetByPeer(asyncio.Transport):
    """A connection whose peer has reset it, before we were told: asyncio's transport then raises from `write_eof`."""

    aborted = False

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        self.aborted = True


async def test_a_connection_that_its_peer_has_reset_is_aborted_and_stops_no_server() -> None:
    raw = ResetByPeer()
    linger(raw)
    assert raw.aborted
