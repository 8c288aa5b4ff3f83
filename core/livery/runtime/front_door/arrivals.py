"""What happens to one connection between accept and being let in: the steps of authentication.

Owns: `UnixArrival` and `TlsArrival`, one object per connection, and the reasons for which they refuse. Does not own:
what comes after (`gate`).

Invariants: a `Caller` is made in one place of each class, after the last check; a refused TLS peer gets its alert or
its close_notify before the connection ends, and the audit trail the reason.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import datetime
from typing import ClassVar

from livery.errors import Kind, LiveryError
from livery.runtime.caller import LOCAL_ADDRESS, Caller, PeerProcess, address_of
from livery.runtime.front_door.connection import Connection
from livery.runtime.front_door.gate import Gate
from livery.runtime.logging import get_logger
from livery.runtime.transport.limits import OverLimit, Seat
from livery.runtime.transport.listen import NotAdmitted, TcpListen, UnixListen
from livery.runtime.transport.peer import PeerGone, process_of, turning_point, verified_peer
from livery.runtime.transport.refusals import STRANGERS, reason_of, sender
from livery.runtime.transport.splice import End
from livery.runtime.transport.tls_contexts import ALPN_HTTP2, CurrentServerContext
from livery.runtime.transport.tls_end import TlsEnd
from livery.runtime.transport.tls_engine import TlsEngine


class UnsuitableTls(LiveryError):
    """The handshake succeeded, but not as it has to."""

    code: ClassVar[str] = "unsuitable_tls"
    kind: ClassVar[Kind] = Kind.UNAUTHENTICATED


class UnixArrival:
    """A process of this machine connects."""

    def __init__(self, gate: Gate, listen: UnixListen) -> None:
        self._gate = gate
        self._listen = listen
        self._connection: Connection | None = None

    def made(self, end: End) -> None:
        """1. Who is it? 2. Is its UID admitted? 3. Is there a seat?"""
        self._gate.census.made(end)
        try:
            process = process_of(end.transport.get_extra_info("socket"))  # 1
        except (PeerGone, OSError) as error:
            self._gate.refusals.tell_bounded(STRANGERS, PeerGone.code, str(error))
            end.abort()
            return
        try:
            if self._listen.admits is not None and not self._listen.admits(process.uid):  # 2
                raise NotAdmitted("this socket is not for everybody", why=f"uid {process.uid} is not admitted")
            seat = self._gate.admission.seat_process(process.uid)  # 3
        except (NotAdmitted, OverLimit) as error:
            self._refuse(process, error)
            end.abort()
            return
        caller = Caller(self._gate.new_name(), LOCAL_ADDRESS, process=process)
        self._connection = self._gate.let_in(end, caller, seat)

    def lost(self, end: End) -> None:
        """Give back what the connection held."""
        self._gate.census.lost(end)
        if self._connection is not None:
            self._gate.table.lose(self._connection)

    def _refuse(self, process: PeerProcess, error: LiveryError) -> None:
        who = {"uid": process.uid, "pid": process.pid}
        self._gate.refusals.tell_bounded(str(process.uid), reason_of(error), str(error), **who)
        os.close(process.pidfd)


class TlsArrival:
    """Somebody connects from the network."""

    def __init__(self, gate: Gate, listen: TcpListen, context: CurrentServerContext) -> None:
        self._gate = gate
        self._listen = listen
        self._context = context
        self._address = ""
        self._seat: Seat | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None

    def made(self, end: End) -> None:
        """Take a seat among strangers and begin the handshake."""
        self._gate.census.made(end)
        peer = end.transport.get_extra_info("peername")
        if not isinstance(end, TlsEnd) or not peer:  # it has gone again already
            end.abort()
            return
        self._address = address_of(peer)
        try:
            self._seat = self._gate.admission.seat_stranger(peer[0])
            engine = TlsEngine(self._context.get(), server_side=True)
        except OverLimit as error:
            self._gate.refusals.tell_bounded(STRANGERS, error.reason, str(error), address=self._address)
            end.abort()
        except (LiveryError, ssl.SSLError, OSError) as error:
            self._gate.refusals.count("no_identity")
            get_logger("livery.door").error("the door cannot show an identity", error=str(error))
            end.abort()
        else:
            timeout = self._gate.limits.handshake_timeout
            self._timer = asyncio.get_running_loop().call_later(timeout, self._time_out, end)
            end.secure(engine)

    def shaken(self, end: TlsEnd) -> None:
        """The handshake is done: from here on SPIFFE's rules decide, before one byte is read."""
        self._stop_timer()
        end.hold()
        assert self._seat is not None
        now = self._gate.clock.now()
        try:
            caller = self._authenticate(end, self._seat, now)
        except LiveryError as error:
            self._refuse(end, error)
        else:
            self._connection = self._gate.let_in(end, caller, self._seat)
            if caller.identity is not None:
                self._connection.turns_at = turning_point(caller.identity, now)

    def _refuse(self, end: TlsEnd, error: LiveryError) -> None:
        # Whoever showed no certificate can come as often as it likes.
        if isinstance(error, OverLimit) or not end.tls.getpeercert(binary_form=True):
            self._gate.refusals.tell_bounded(STRANGERS, reason_of(error), str(error), address=self._address)
        else:
            self._gate.refusals.tell(reason_of(error), str(error), address=self._address)
        end.close()

    def _authenticate(self, end: TlsEnd, seat: Seat, now: datetime) -> Caller:
        """Say who the peer is, or raise.

        1. HTTP/2 was agreed on, and the peer proved its key now, not in an earlier session.
        2. If it showed a certificate, the authority of its own trust domain vouches for it.
        3. Its ID is wanted here.
        4. There is a seat for it.
        """
        _require_suitable(end.tls)  # 1
        identity = verified_peer(end.tls, self._listen.identity.bundles(), now)  # 2
        if identity is None:
            seat.become_anonymous()  # 4
        else:
            self._listen.require_admitted(identity.id)  # 3
            seat.become_identity(str(identity.id))  # 4
        return Caller(self._gate.new_name(), self._address, identity)

    def failed(self, _end: TlsEnd, error: ssl.SSLError) -> None:
        """TLS itself refused the peer, or the peer us."""
        self._stop_timer()
        if isinstance(error, ssl.SSLCertVerificationError):
            holder, why = sender(self._address), error.verify_message
            self._gate.refusals.tell_bounded(holder, "certificate_refused", why, address=self._address)
        elif isinstance(error, ssl.SSLEOFError):
            self._gate.refusals.count("handshake_abandoned")
        else:
            why = str(error.reason or error).replace("_", " ").lower()
            self._gate.refusals.tell_bounded(STRANGERS, "tls_failed", why, address=self._address)

    def received(self, _end: TlsEnd) -> None:
        """Nothing hangs on the first byte here."""

    def lost(self, end: End) -> None:
        """Give back what the connection held."""
        self._gate.census.lost(end)
        self._stop_timer()
        if self._connection is not None:
            self._gate.table.lose(self._connection)
        elif self._seat is not None:
            self._seat.leave()

    def _time_out(self, end: TlsEnd) -> None:
        why = f"no handshake within {self._gate.limits.handshake_timeout:g} s"
        self._gate.refusals.tell_bounded(STRANGERS, "handshake_timeout", why, address=self._address)
        end.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _require_suitable(tls: ssl.SSLObject) -> None:
    if tls.session_reused:
        raise UnsuitableTls("an earlier TLS session was resumed", why="its certificate was not shown again")
    if tls.selected_alpn_protocol() != ALPN_HTTP2:  # RFC 9113 3.2
        raise UnsuitableTls("not an HTTP/2 client", why="it did not ask for h2 by ALPN")
