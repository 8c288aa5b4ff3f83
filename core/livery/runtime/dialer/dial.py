"""One connection outwards: TCP, TLS, the check of who answers, and the splice to grpc.

Owns: the steps of one dial and the words for why it failed. Does not own: the channel (`dialer`).

Invariants: the peer is verified against the bundle of the expected ID's trust domain, and its ID compared, before a
byte of grpc's leaves; every dial that did not bring a first byte leaves a reason.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, SpiffeId, X509Svid
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery.runtime.transport.peer import verified_peer
from livery.runtime.transport.splice import Census, End
from livery.runtime.transport.tls_contexts import ALPN_HTTP2, client_context
from livery.runtime.transport.tls_end import TlsEnd
from livery.runtime.transport.tls_engine import TlsEngine

# Seconds and counts: a peer whose machine is gone is noticed within about half a minute, also under unsent data.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)

_LAST_PORT = 65535
_NO_ANSWER = "it closed the connection without an answer, as one does that does not admit our identity"
_MUTE = "no answer in time: the TLS handshake went well, and then it said nothing"


class DialRefused(LiveryError):
    """There is no connection to the peer."""

    code: ClassVar[str] = "dial_refused"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to dial, and as whom, for one dial."""

    address: str
    expected: SpiffeId
    svid: X509Svid | None
    bundles: BundleMap
    clock: Clock
    timeout: float

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The parts of "host:port" or "[::1]:port"."""
        host, _, port = self.address.rpartition(":")
        if not host or host.startswith(".") or not port.isdecimal() or int(port) > _LAST_PORT:
            raise DialRefused("cannot dial", why=f"{self.address!r} is not host:port")
        return host.strip("[]"), int(port)

    def engine(self) -> TlsEngine:
        """Return TLS for this dial."""
        trusted = self.bundles.get(self.expected.trust_domain)
        if trusted is None or not trusted.x509_authorities:
            raise DialRefused("cannot dial", why=f"there is no authority of {self.expected.trust_domain} to trust")
        host, _ = self.host_and_port
        context = client_context(self.svid, trusted, self.bundles)
        return TlsEngine(context, server_side=False, server_name=None if _is_ip(host) else host)

    def check(self, tls: ssl.SSLObject) -> None:
        """Raise unless the peer is who is expected. OpenSSL has only looked at the chain."""
        peer = verified_peer(tls, self.bundles, self.clock.now())
        if peer is None or peer.id != self.expected:
            found = "shows no certificate" if peer is None else f"is {peer.id}"
            raise DialRefused("this is not the expected peer", why=f"it {found}, expected was {self.expected}")
        if tls.selected_alpn_protocol() != ALPN_HTTP2:
            raise DialRefused("the peer does not speak HTTP/2", why="it did not select h2 by ALPN")


@dataclass(frozen=True, slots=True)
class Reports:
    """What a dial asks and tells its dialer: whom to dial, how it went (None: well), which ends are open."""

    target: Callable[[], Target]
    note: Callable[[str | None], None]
    census: Census


class Dial:
    """One dial for the connection `inner` that grpc has opened."""

    BUFFERED: ClassVar[int] = 128 * 1024  # bytes per direction

    def __init__(self, reports: Reports, inner: End) -> None:
        self._reports = reports
        self._inner = inner
        self._outer = TlsEnd(self.BUFFERED, self)
        self._engine: TlsEngine | None = None
        self._aim: Target | None = None
        self._done: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_spliced = False
        self._has_answered = False
        self._is_over = False

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Grpc has closed its end: because it gave up, or because the peer had closed first."""
        if self._is_spliced and not self._has_answered:
            self._fail(self._silence)
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
        self._outer.close()

    async def _run(self) -> None:
        """1. TLS for who we are now. 2. Connect. 3. Shake hands; `shaken` checks the peer and splices."""
        try:
            self._aim = self._reports.target()
            self._engine = self._aim.engine()  # 1
            async with asyncio.timeout(self._aim.timeout):
                await self._connect(*self._aim.host_and_port)  # 2
                await self._finished()  # 3
        except TimeoutError:
            self._fail("no connection in time")
        except (LiveryError, UnicodeError) as error:  # the latter for a host that cannot be a name
            self._fail(str(error))
        except OSError as error:
            self._fail(_system(error))
        except Exception as error:  # noqa: BLE001 - a task boundary; identity and bundles are others' code
            get_logger("livery.dialer").exception("a dial failed")
            self._fail(type(error).__name__)

    async def _connect(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        await loop.create_connection(lambda: self._outer, host, port)

    async def _finished(self) -> None:
        assert self._done is not None
        await self._done

    def made(self, end: End) -> None:
        """TCP stands."""
        self._reports.census.made(end)
        sock = end.transport.get_extra_info("socket")
        for option in _KEEPALIVE:
            with suppress(OSError):
                sock.setsockopt(*option)
        assert self._engine is not None
        self._outer.secure(self._engine)

    def shaken(self, end: TlsEnd) -> None:
        """Check who answered, then let grpc speak."""
        end.hold()
        assert self._aim is not None
        try:
            self._aim.check(end.tls)
        except LiveryError as error:
            self._fail(str(error))
            return
        self._is_spliced = True
        self._inner.join(end)
        end.join(self._inner)
        self._settle()
        self._inner.flow()
        end.flow()

    def failed(self, _end: TlsEnd, error: ssl.SSLError) -> None:
        """TLS failed: by our refusal of the peer, or its refusal of us."""
        if isinstance(error, ssl.SSLCertVerificationError):
            self._fail(f"its certificate is not accepted: {error.verify_message}")
        elif not isinstance(error, ssl.SSLEOFError):
            self._fail(_spoken(error))

    def received(self, _end: TlsEnd) -> None:
        """The peer has let us in."""
        self._has_answered = True
        self._reports.note(None)

    def lost(self, end: End) -> None:
        """The peer is gone; without a first byte, that was its answer."""
        self._reports.census.lost(end)
        if not self._has_answered:
            self._fail(self._silence)
        self._settle()

    @property
    def _silence(self) -> str:
        return _MUTE if self._outer.has_left_first else _NO_ANSWER

    def _fail(self, refusal: str) -> None:
        if not self._is_over and not self._has_answered:
            self._is_over = True
            self._reports.note(refusal)
        self._settle()
        self._outer.close()
        self._inner.close()

    def _settle(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


def _spoken(error: ssl.SSLError) -> str:
    """`TLSV1_ALERT_UNKNOWN_CA` becomes words that say who refused whom."""
    words = str(error.reason or error).replace("_", " ").lower()
    _, alert, what = words.partition(" alert ")
    return f"it refused our identity or our TLS: {what}" if alert else f"TLS failed: {words}"


def _system(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
