"""HTTP over mutual TLS to one server identity: `client(source, expected)` gives an `httpx2.AsyncClient`.

Connections are pooled per *epoch*: one state of our identity. A rotation, or a server certificate that nears its end,
begins a new epoch; the old one's idle connections are closed at once, its requests under way finish on theirs.

Owns: epochs, and turning a refused handshake into our error. Does not own: HTTP (httpx2), retries, redirects.

Invariants: the server's SPIFFE ID is verified to be exactly the expected one before the first byte of a request is
written; a request never begins on a connection whose certificate, on either side, has ended; nothing is sent in clear.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Protocol

import httpx2

from livery.errors import LiveryError
from livery.identity import BundleMap, SpiffeId, X509Svid
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.transport.listen import DoorIdentity
from livery.workload.context import X509Context
from livery.workload.tls import HTTP1, client_context_of, exactly, refusal_behind, require_peer, require_unended

# A pooled connection is used at most this long after its last response: well below what servers keep theirs.
KEEP_ALIVE = 15.0
# What httpx2 would send past our transport, or let pass where it is ours.
_OURS = ("transport", "mounts", "proxy", "verify", "cert", "trust_env", "http1", "http2")


class RotatingIdentity(DoorIdentity, Protocol):
    """What is asked of a source; `livery.workload.WorkloadSource` is one."""

    def on_update(self, callback: Callable[[X509Context | None], None]) -> Callable[[], None]:
        """Call back after each change; returns how to stop it."""
        ...


def client(
    source: RotatingIdentity, expected: SpiffeId, *, clock: Clock | None = None, **options: Any
) -> httpx2.AsyncClient:
    """A client for `https://` URLs of the server that is `expected`, showing our newest SVID.

    `options` are `httpx2.AsyncClient`'s (`base_url`, `timeout`, `headers`, ...) but for those about TLS, proxies and
    transports, which are ours (TypeError). Requests raise `PeerRefused` or an `IdentityError` if the server is somebody
    else, `IdentityEnded` if our own certificate has ended, and httpx2's errors for everything else.
    """
    taken = [name for name in options if name in _OURS]
    if taken:
        raise TypeError(f"{', '.join(taken)}: how requests are sent is not for options to say; they go as our SVID")
    limits = options.pop("limits", httpx2.Limits(keepalive_expiry=KEEP_ALIVE))
    transport = SvidTransport(source, expected, limits, clock or SystemClock())
    return httpx2.AsyncClient(transport=transport, trust_env=False, **options)


class SvidTransport(httpx2.AsyncBaseTransport):
    """The transport behind `client`."""

    def __init__(self, source: RotatingIdentity, expected: SpiffeId, limits: httpx2.Limits, clock: Clock) -> None:
        self._source = source
        self._expected = expected
        self._limits = limits
        self._clock = clock
        self._epoch: Epoch | None = None
        self._retired: set[Epoch] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._unsubscribe = source.on_update(lambda _: self._turn_if_changed())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request on a connection of the current epoch."""
        if request.url.scheme != "https":
            raise httpx2.UnsupportedProtocol("only https:// URLs are sent with an SVID", request=request)
        epoch = self._current()
        epoch.in_flight += 1
        try:
            response = await epoch.transport.handle_async_request(request)
        except BaseException as error:
            self._done(epoch)
            refusal = refusal_behind(error)
            if refusal is not None:
                raise refusal from error
            raise
        response.stream = _Counted(response.stream, lambda: self._done(epoch))
        return response

    async def aclose(self) -> None:
        """Close every connection, those with requests under way included."""
        self._unsubscribe()
        self._turn()
        for epoch in tuple(self._retired):
            self._close(epoch)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _current(self) -> Epoch:
        """The epoch for a new request; raises if our identity is gone or has ended."""
        svid, bundles, now = self._source.svid(), self._source.bundles(), self._clock.now()
        require_unended(svid, self._clock)
        if self._epoch is None or not self._epoch.is_of(svid, bundles, now):
            self._turn()
            self._epoch = Epoch(svid, bundles, self._expected, self._limits, self._clock)
        return self._epoch

    def _turn_if_changed(self) -> None:
        """On a rotation: do not keep idle connections waiting for the next request to notice."""
        try:
            svid, bundles = self._source.svid(), self._source.bundles()
        except LiveryError:
            self._turn()
            return
        if self._epoch is not None and not self._epoch.is_of(svid, bundles, self._clock.now()):
            self._turn()

    def _turn(self) -> None:
        """End the current epoch; the next request begins another."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            self._retired.add(epoch)
            self._close_if_idle(epoch)

    def _done(self, epoch: Epoch) -> None:
        epoch.in_flight -= 1
        self._close_if_idle(epoch)

    def _close_if_idle(self, epoch: Epoch) -> None:
        if epoch in self._retired and not epoch.in_flight:
            self._close(epoch)

    def _close(self, epoch: Epoch) -> None:
        self._retired.discard(epoch)
        task = asyncio.get_running_loop().create_task(epoch.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class Epoch:
    """The connections made with one state of our identity."""

    def __init__(
        self, svid: X509Svid, bundles: BundleMap, expected: SpiffeId, limits: httpx2.Limits, clock: Clock
    ) -> None:
        self._svid = svid
        self._bundles = bundles
        self._expected = expected
        self._clock = clock
        self._ends: datetime = svid.not_after
        self.in_flight = 0
        context = client_context_of(svid, bundles, expected, alpn=HTTP1, check=self._check)
        self.transport = httpx2.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits)

    def is_of(self, svid: X509Svid, bundles: BundleMap, now: datetime) -> bool:
        """Whether new requests may use these connections."""
        return self._svid is svid and self._bundles is bundles and now < self._ends

    def _check(self, tls: ssl.SSLObject) -> None:
        now = self._clock.now()
        server = require_peer(tls, self._bundles, exactly(self._expected), self._clock)
        # New connections three quarters into what is left of the server's certificate, long before its end.
        self._ends = min(self._ends, now + (server.not_after - now) * 3 / 4)

    async def close(self) -> None:
        """Close its connections."""
        with contextlib.suppress(httpx2.HTTPError, OSError):
            await self.transport.aclose()


class _Counted(httpx2.AsyncByteStream):
    """A response's body that tells when it is read or given up."""

    def __init__(self, stream: Any, done: Any) -> None:
        self._stream = stream
        self._done = done
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        """Give the connection back."""
        try:
            await self._stream.aclose()
        finally:
            if not self._is_closed:
                self._is_closed = True
                self._done()
