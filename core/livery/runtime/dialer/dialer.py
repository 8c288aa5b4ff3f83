"""The way out: grpcio dials a private socket, and the TLS connection behind it is ours.

Owns: the private socket, the channel to it, and the last refusal. Does not own: one connection's handshake and checks
(`dial`), nor retries and back-off, which are grpcio's.

Invariants: not one byte from gRPC leaves before the peer's chain was verified and its ID compared; a dial counts as
made at the peer's first byte, because in TLS 1.3 a refusal arrives after our side has finished; the private socket
admits this process and no other.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from urllib.parse import quote

import grpc
import grpc.aio

from livery.identity import BundleMap, SpiffeId, X509Svid
from livery.runtime.clock import Clock
from livery.runtime.completion import whole
from livery.runtime.dialer.dial import Dial, Reports, Target
from livery.runtime.transport.private_directory import PrivateDirectory
from livery.runtime.transport.splice import Census, End, close_listener, serving

ChannelOption = tuple[str, int | str]
_UCRED = struct.Struct("3i")
# No HTTP/2 keepalive: servers that did not agree to it end the connection over it. A dead peer is TCP's to notice.
_OPTIONS: tuple[ChannelOption, ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(eq=False)
class Dialer:
    """One address ("host:port") and the identity expected there. `identity` and `bundles` are asked at every dial.

    Without an SVID it shows no certificate. `options` are grpc's, and come before ours.
    """

    _: KW_ONLY
    address: str
    expected: SpiffeId
    identity: Callable[[], X509Svid | None]
    bundles: Callable[[], BundleMap]
    run_dir: Path
    clock: Clock
    timeout: float = 10.0  # seconds for connection and handshake together
    options: Sequence[ChannelOption] = ()
    _open: _Open | None = field(default=None, init=False, repr=False)
    _refusal: str | None = field(default=None, init=False, repr=False)

    async def start(self) -> grpc.aio.Channel:
        """Return a channel to the address; it connects when first used. Raises `NoPrivateDirectory`, a `FileError`."""
        if self._open is None:
            directory = PrivateDirectory.create(self.run_dir)
            try:
                self._open = await self._start_in(directory)
            except BaseException:
                directory.remove()
                raise
        return self._open.channel

    async def close(self) -> None:
        """Close the channel and every connection, also if cancelled meanwhile. Without effect if closed."""
        opened, self._open = self._open, None
        if opened is not None:
            await whole(opened.close())

    @property
    def last_refusal(self) -> str | None:
        """Why the last dial failed; None once a peer has answered."""
        return self._refusal

    def explain(self, error: grpc.aio.AioRpcError) -> str:
        """Return an error's text, with the last refusal in it where grpc could only say that a socket was closed."""
        text = error.details() or error.code().name
        if error.code() is grpc.StatusCode.UNAVAILABLE and self._refusal is not None:
            return f"{self.address}: {self._refusal} ({text})"
        return text

    async def _start_in(self, directory: PrivateDirectory) -> _Open:
        path, census = directory.new_name(), Census()

        def inside() -> End:
            return End(Dial.BUFFERED, _Inside(self, census))

        loop = asyncio.get_running_loop()
        listener = await serving(await loop.create_unix_server(inside, str(path), start_serving=False))
        defaults = (*_OPTIONS, ("grpc.default_authority", self.address))
        channel = grpc.aio.insecure_channel(f"unix:{quote(str(path))}", options=(*defaults, *self.options))
        return _Open(directory, listener, channel, census)

    def _target(self) -> Target:
        return Target(self.address, self.expected, self.identity(), self.bundles(), self.clock, self.timeout)

    def _note(self, refusal: str | None) -> None:
        self._refusal = refusal


class _Inside:
    """grpc's end of one dial."""

    def __init__(self, dialer: Dialer, census: Census) -> None:
        self._dialer = dialer
        self._census = census
        self._dial: Dial | None = None

    def made(self, end: End) -> None:
        """Grpc wants a connection: make it, if it is our own grpc that asks."""
        self._census.made(end)
        peer = end.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        if _UCRED.unpack(peer)[0] != os.getpid():
            end.abort()
            return
        reports = Reports(self._dialer._target, self._dialer._note, self._census)  # noqa: SLF001 - one class in two
        self._dial = Dial(reports, end)
        self._dial.start()

    def lost(self, end: End) -> None:
        """Grpc gave up, or closed the connection."""
        self._census.lost(end)
        if self._dial is not None:
            self._dial.cancel()


@dataclass(frozen=True, slots=True)
class _Open:
    """What is there while the dialer is open; the listener is held, because uvloop closes one nobody refers to."""

    directory: PrivateDirectory
    listener: asyncio.Server
    channel: grpc.aio.Channel
    census: Census

    async def close(self) -> None:
        await self.channel.close()
        await close_listener(self.listener)
        await self.census.close()
        self.directory.remove()
