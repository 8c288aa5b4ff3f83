"""TLS contexts for any asyncio program, over an identity that changes underneath.

`server_context(source)` and `client_context(source, expected)` are `ssl.SSLContext`s to be made once and used for ever:
each handshake shows the SVID and trusts the bundles of that moment, and fails unless the peer's SPIFFE ID is verified
and wanted. They work wherever TLS is driven over buffers: asyncio, uvloop, anyio, and what is built on them.

Owns: the check at the end of a handshake. Does not own: connections once they are made; a long-lived one outlives the
certificate it was made with unless its owner dials again (as `livery.workload.http_client` does).

Invariant: the check is part of the handshake, so no program can write or read a byte before it passed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Self

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, SpiffeId, VerifiedX509Svid, X509Svid
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.transport import tls_contexts
from livery.runtime.transport.listen import DoorIdentity
from livery.runtime.transport.peer import verified_peer
from livery.workload.errors import IdentityEnded, PeerRefused, WorkloadError

HTTP1: Final = ("http/1.1",)

Admits = Callable[[SpiffeId], str | None]
"""Why an ID is not wanted, or None."""


class RefusedInHandshake(ssl.SSLError):
    """How a refusal travels through code that knows `ssl` only; `refusal` is ours."""

    refusal: LiveryError

    @classmethod
    def of(cls, refusal: LiveryError) -> Self:
        """Wrap a refusal."""
        error = cls(ssl.SSL_ERROR_SSL, str(refusal))
        error.refusal = refusal
        return error


class BlockingSocketsUnsupported(WorkloadError):
    """These contexts check the peer on buffers, not on blocking sockets."""

    code: ClassVar[str] = "blocking_sockets_unsupported"
    kind: ClassVar[Kind] = Kind.UNIMPLEMENTED


def refusal_behind(error: BaseException | None) -> LiveryError | None:
    """The refusal of ours that a library's connection error was caused by, if any."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, RefusedInHandshake):
            return error.refusal
        error = error.__cause__ or error.__context__
    return None


def server_context(
    source: DoorIdentity, admits: Admits | None = None, *, alpn: Sequence[str] = HTTP1, clock: Clock | None = None
) -> ssl.SSLContext:
    """For a server that demands a client certificate, of our own trust domain unless `admits` says otherwise."""
    times = clock or SystemClock()

    def make(svid: X509Svid, bundles: BundleMap) -> ssl.SSLContext:
        context = tls_contexts.server_context(svid, bundles, alpn=alpn, client_certificate=ssl.CERT_REQUIRED)
        wanted = admits or _own_domain(svid)
        return checked(context, lambda tls: require_peer(tls, bundles, wanted, times))

    return CurrentContext.of(source, make, server_side=True)


def client_context(
    source: DoorIdentity, expected: SpiffeId, *, alpn: Sequence[str] = HTTP1, clock: Clock | None = None
) -> ssl.SSLContext:
    """For a client of exactly one server identity. Host names are not looked at."""
    times = clock or SystemClock()

    def make(svid: X509Svid, bundles: BundleMap) -> ssl.SSLContext:
        return client_context_of(svid, bundles, expected, alpn=alpn, check=_checking(bundles, exactly(expected), times))

    return CurrentContext.of(source, make, server_side=False)


def client_context_of(
    svid: X509Svid,
    bundles: BundleMap,
    expected: SpiffeId,
    *,
    alpn: Sequence[str],
    check: Callable[[ssl.SSLObject], object],
) -> ssl.SSLContext:
    """A client's context for one state of our identity; `check` is asked at the end of each handshake."""
    trusted = bundles.get(expected.trust_domain)
    if trusted is None:
        why = f"we hold no bundle of {expected.trust_domain}"
        raise PeerRefused(f"{expected} cannot be verified", why=why, fix="federate with its trust domain")
    return checked(tls_contexts.client_context(svid, trusted, bundles, alpn=alpn), check)


def exactly(expected: SpiffeId) -> Admits:
    """Admit this one ID."""
    return lambda found: None if found == expected else f"expected {expected}"


def require_peer(tls: ssl.SSLObject, bundles: BundleMap, admits: Admits, clock: Clock) -> VerifiedX509Svid:
    """Who is at the other end of a finished handshake. Raises `PeerRefused` or an `IdentityError`."""
    peer = verified_peer(tls, bundles, clock.now())
    if peer is None:
        raise PeerRefused("the peer showed no certificate")
    why = admits(peer.id)
    if why is not None:
        raise PeerRefused(f"the peer is {peer.id}", why=why, fix="check the address, or the expected SPIFFE ID")
    return peer


def checked(context: ssl.SSLContext, check: Callable[[ssl.SSLObject], object]) -> ssl.SSLContext:
    """Make `check` the last step of every handshake of this context; it refuses by raising a `LiveryError`."""

    class Checked(ssl.SSLObject):
        """A connection whose handshake is complete only after the check."""

        _is_checked = False

        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                check(self)
            except LiveryError as refusal:
                raise RefusedInHandshake.of(refusal) from refusal
            self._is_checked = True

        # OpenSSL shakes hands by itself when somebody reads or writes first.
        def read(self, *args: Any, **kwargs: Any) -> Any:
            self._require_checked()
            return super().read(*args, **kwargs)

        def write(self, *args: Any, **kwargs: Any) -> Any:
            self._require_checked()
            return super().write(*args, **kwargs)

        def _require_checked(self) -> None:
            if not self._is_checked:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "do_handshake comes first: the peer was not checked yet")

    context.sslobject_class = Checked
    return context


class CurrentContext(ssl.SSLContext):
    """A context that stands for the newest one; programs keep it, handshakes use what it stands for."""

    _source: DoorIdentity
    _make: Callable[[X509Svid, BundleMap], ssl.SSLContext]
    _made: tuple[X509Svid, BundleMap, ssl.SSLContext] | None

    @classmethod
    def of(
        cls, source: DoorIdentity, make: Callable[[X509Svid, BundleMap], ssl.SSLContext], *, server_side: bool
    ) -> Self:
        """Stand for what `make` makes of the source's SVID and bundles."""
        context = cls(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        if not server_side:
            context.check_hostname = False  # asyncio would demand a host name, and a SPIFFE ID is compared instead
        context._source, context._make, context._made = source, make, None
        return context

    def current(self) -> ssl.SSLContext:
        """The context for the next handshake; made anew, in about 2 ms, after a change, or when it is used up."""
        svid, bundles, made = self._source.svid(), self._source.bundles(), self._made
        if made is None or made[0] is not svid or made[1] is not bundles or tls_contexts.is_used_up(made[2]):
            made = self._made = (svid, bundles, self._make(svid, bundles))
        return made[2]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection with the identity of this moment."""
        try:
            context = self.current()
        except LiveryError as refusal:
            # Event loops expect errors from the handshake, and clean up after those.
            context = _refusing(refusal, self.protocol)
        return context.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *_args: Any, **_kwargs: Any) -> ssl.SSLSocket:
        """Refuse: the check at the end of the handshake is made for buffers."""
        raise BlockingSocketsUnsupported("blocking sockets are not supported", fix="use asyncio, uvloop or anyio")


def require_unended(svid: X509Svid, clock: Clock) -> None:
    """Raise `IdentityEnded` if our own certificate has ended: no peer would accept it."""
    if clock.now() > svid.not_after:
        why = f"it was valid until {svid.not_after.isoformat()}, and the agent has not sent a new one"
        raise IdentityEnded("our certificate has ended", why=why, fix="is the agent running, and can it reach the CA?")


def _refusing(refusal: LiveryError, protocol: int) -> ssl.SSLContext:
    """A context whose handshakes end before they begin."""

    class Refusing(ssl.SSLObject):
        """A connection that is never made."""

        def do_handshake(self) -> None:
            raise RefusedInHandshake.of(refusal) from refusal

    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.sslobject_class = Refusing
    return context


def _checking(bundles: BundleMap, admits: Admits, clock: Clock) -> Callable[[ssl.SSLObject], object]:
    return lambda tls: require_peer(tls, bundles, admits, clock)


def _own_domain(svid: X509Svid) -> Admits:
    own = svid.id.trust_domain
    return lambda found: None if found.member_of(own) else f"it is not of {own}"
