"""Who may come in to an HTTP server: the steps of authentication, and the record of who was refused.

Owns: the TLS context of the moment, the identification of peers, their seats, and the check that an identity let in
earlier still holds. Does not own: bytes (`connection`), requests (`gate`).

Invariants: a peer's chain is verified against the bundle of its own trust domain before it becomes an `HttpPeer`, and
again at its next request whenever the bundles have changed.
"""

from __future__ import annotations

import os
import ssl
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding

from livery.errors import LiveryError
from livery.identity import BundleMap, IdentityError, X509Svid, verify_x509
from livery.runtime.audit import Audit
from livery.runtime.caller import LOCAL_ADDRESS
from livery.runtime.clock import Clock
from livery.runtime.http.gate import GateSettings, HttpPeer
from livery.runtime.http.protocol import HttpBounds, Parts
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import Admission, DoorLimits, Seat
from livery.runtime.transport.listen import Listen, NotAdmitted, TcpListen, UnixListen
from livery.runtime.transport.peer import process_of, verified_peer
from livery.runtime.transport.refusals import STRANGERS, Refusals, reason_of, sender
from livery.runtime.transport.tls_contexts import is_used_up, server_context

ALPN = ("http/1.1",)


class Options(Protocol):
    """What a reception needs to know of the server's options."""

    @property
    def bounds(self) -> HttpBounds: ...  # noqa: D102
    @property
    def limits(self) -> DoorLimits: ...  # noqa: D102
    @property
    def demand_client_certificate(self) -> bool: ...  # noqa: D102
    @property
    def log_requests(self) -> bool: ...  # noqa: D102


class HttpReception:
    """The reception of one server."""

    def __init__(self, listen: Listen, options: Options, clock: Clock, audit: Audit, metrics: Metrics) -> None:
        self._listen = listen
        self._options = options
        self._clock = clock
        self._admission = Admission(options.limits)
        self._refusals = Refusals("https" if isinstance(listen, TcpListen) else "http-unix", audit, metrics, clock)
        self._shown: tuple[X509Svid, BundleMap, ssl.SSLContext, str] | None = None

    @property
    def handshake_timeout(self) -> float:
        """Seconds from accept until the peer must be known."""
        return self._options.limits.handshake_timeout

    def context(self) -> ssl.SSLContext:
        """The context for the next handshake, made anew when our SVID or bundles changed, or when it is used up."""
        return self._showing()[2]

    def _showing(self) -> tuple[X509Svid, BundleMap, ssl.SSLContext, str]:
        identity = self._tcp.identity
        svid, bundles = identity.svid(), identity.bundles()
        shown = self._shown
        if shown is None or shown[0] is not svid or shown[1] is not bundles or is_used_up(shown[2]):
            mode = ssl.CERT_REQUIRED if self._options.demand_client_certificate else ssl.CERT_OPTIONAL
            context = server_context(svid, bundles, alpn=ALPN, client_certificate=mode)
            shown = self._shown = (svid, bundles, context, svid.leaf.public_bytes(Encoding.PEM).decode("ascii"))
        return shown

    @property
    def _tcp(self) -> TcpListen:
        assert isinstance(self._listen, TcpListen)
        return self._listen

    def seat(self, ip: str) -> Seat:
        """A seat among strangers; raises `OverLimit`."""
        return self._admission.seat_stranger(ip)

    def identify(self, tls: ssl.SSLObject, address: str, seat: Seat) -> HttpPeer:
        """Who finished this handshake, or raise.

        1. If it showed a certificate, the authority of its own trust domain vouches for it.
        2. Its ID is wanted here.
        3. There is a seat for it.
        """
        identity = verified_peer(tls, self._tcp.identity.bundles(), self._clock.now())  # 1
        if identity is None:
            seat.become_anonymous()  # 3
        else:
            self._tcp.require_admitted(identity.id)  # 2
            seat.become_identity(str(identity.id))  # 3
        return HttpPeer(identity, None, address)

    def process(self, sock: Any) -> tuple[HttpPeer, Seat]:
        """Which process is at the other end, if its UID is admitted and there is a seat for it."""
        process = process_of(sock)
        try:
            admits = self._listen.admits if isinstance(self._listen, UnixListen) else None
            if admits is not None and not admits(process.uid):
                raise NotAdmitted("this socket is not for everybody", why=f"uid {process.uid} is not admitted")
            return HttpPeer(None, process, LOCAL_ADDRESS), self._admission.seat_process(process.uid)
        except LiveryError:
            os.close(process.pidfd)
            raise

    def parts(self) -> Parts:
        """What a new connection is made with."""
        bounds = self._options.bounds
        gate = GateSettings(
            self._clock, bounds.body_bytes, self._options.log_requests, bundles=self.bundles, recheck=self.recheck
        )
        return Parts(bounds, gate, self._shown[3] if self._shown is not None else "")

    def bundles(self) -> BundleMap | None:
        """What chains are held against at this moment; None on a unix socket."""
        return self._listen.identity.bundles() if isinstance(self._listen, TcpListen) else None

    def recheck(self, peer: HttpPeer) -> None:
        """Raise unless this peer's chain verifies against the bundles of now, and its ID is still wanted."""
        if peer.identity is not None:
            verify_x509(peer.identity.chain, self._tcp.identity.bundles(), self._clock.now())
            self._tcp.require_admitted(peer.identity.id)

    def refused(self, address: str, error: Exception) -> None:
        """Record a refused connection: always if TLS accepted its certificate, up to a rate otherwise."""
        match error:
            case ssl.SSLCertVerificationError():
                why = error.verify_message
                self._refusals.tell_bounded(sender(address), "certificate_refused", why, address=address)
            case ssl.SSLEOFError():
                self._refusals.count("handshake_abandoned")
            case ssl.SSLError():
                why = (error.reason or "not TLS").replace("_", " ").lower()
                self._refusals.tell_bounded(STRANGERS, "tls_failed", why, address=address)
            case IdentityError() | NotAdmitted() if address != LOCAL_ADDRESS:
                self._refusals.tell(error.code, str(error), address=address)
            case LiveryError():
                self._refusals.tell_bounded(STRANGERS, reason_of(error), str(error), address=address)
            case _:
                self._refusals.tell_bounded(STRANGERS, "unreadable", str(error), address=address)
