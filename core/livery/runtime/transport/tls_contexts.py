"""TLS contexts made from an SVID and bundles.

Owns: the settings of both sides (versions, ALPN, verification flags), loading a key without a file, and which
authorities OpenSSL is shown. Does not own: the SPIFFE rules, which OpenSSL does not know; `peer.verified_peer` applies
them after the handshake, every time.

Invariants: a context never outlives a change of what it was made from (roots can be added to a context but not taken
away, so a change makes a new one); no session is resumed, because that would skip verification, so a server's context
in which there is one is not used again; what we send as our own chain is what we chose, not what OpenSSL finds in the
verification store.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from livery.identity import BundleMap, TrustBundle, X509Authority, X509Svid
from livery.runtime.transport.listen import DoorIdentity

ALPN_HTTP2 = "h2"


class CurrentServerContext:
    """The server context for what the identity is now; a new one is made (in about 2 ms) only after a change, or when
    the last one is used up.
    """

    def __init__(self, identity: DoorIdentity) -> None:
        self._identity = identity
        self._made_from: tuple[X509Svid, BundleMap] | None = None
        self._context: ssl.SSLContext | None = None

    def get(self) -> ssl.SSLContext:
        """Return the context for the next handshake. Raises whatever makes the identity unusable."""
        svid, bundles = self._identity.svid(), self._identity.bundles()
        known, context = self._made_from, self._context
        if context is None or known is None or known[0] is not svid or known[1] is not bundles or is_used_up(context):
            context = self._context = server_context(svid, bundles)
            self._made_from = svid, bundles
        return context


def is_used_up(context: ssl.SSLContext) -> bool:
    """Whether OpenSSL remembers a session in a server's context, as it does of TLS 1.2 whatever `OP_NO_TICKET` says.

    The next client could resume it by its number, and thousands would be kept. Python has no way to turn that off.
    """
    return context.session_stats()["number"] > 0


def server_context(
    svid: X509Svid,
    bundles: BundleMap,
    *,
    alpn: Sequence[str] = (ALPN_HTTP2,),
    client_certificate: ssl.VerifyMode = ssl.CERT_OPTIONAL,
) -> ssl.SSLContext:
    """Return a server's context; client certificates may chain to any of `bundles`, the own domain's first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _secure(context, alpn)
    context.verify_mode = client_certificate
    context.num_tickets = 0
    _show(context, svid, bundles)
    own = bundles.get(svid.id.trust_domain)
    foreign = [bundle for bundle in bundles.values() if bundle is not own]
    _trust(context, authorities_of(own, foreign))
    return context


def client_context(
    svid: X509Svid | None, trusted: TrustBundle, bundles: BundleMap, *, alpn: Sequence[str] = (ALPN_HTTP2,)
) -> ssl.SSLContext:
    """Return a client's context for a server of `trusted`'s domain; without an SVID it shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _secure(context, alpn)
    context.check_hostname = False  # a SPIFFE ID is compared in its place, once the handshake is done
    context.verify_mode = ssl.CERT_REQUIRED
    if svid is not None:
        _show(context, svid, bundles)
    _trust(context, trusted.x509_authorities)
    return context


def authorities_of(own: TrustBundle | None, foreign: Iterable[TrustBundle]) -> list[X509Authority]:
    """Return the authorities for one verification store: ours, and the foreign ones that cannot be mistaken for ours.

    OpenSSL takes the first certificate with the issuer's name and key identifier and does not look further: a foreign
    authority that copies both would make it refuse everybody of ours. Such a bundle should never have been imported.
    """
    ours = list(own.x509_authorities) if own is not None else []
    taken = {mark for each in ours for mark in each.marks}
    others = [each for bundle in foreign for each in bundle.x509_authorities]
    return ours + [each for each in others if taken.isdisjoint(each.marks)]


def _secure(context: ssl.SSLContext, alpn: Sequence[str]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # A bundle's authorities are anchors, self-signed or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(list(alpn))


def _trust(context: ssl.SSLContext, authorities: Iterable[X509Authority]) -> None:
    roots = b"".join(each.der() for each in authorities)
    if roots:  # an empty store is legal (everything revoked), but OpenSSL's loader calls it an error
        context.load_verify_locations(cadata=roots)


def _show(context: ssl.SSLContext, svid: X509Svid, bundles: BundleMap) -> None:
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in chain_to_send(svid, bundles))
    # A file that is nowhere: the key must not touch a disk, and the module loads keys from files only.
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        _write(descriptor, chain + svid.key_pem())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def chain_to_send(svid: X509Svid, bundles: BundleMap) -> tuple[x509.Certificate, ...]:
    """Return our chain as the peer shall see it.

    A lone leaf gets its authority appended: otherwise OpenSSL completes it from the verification store by name, which
    may be somebody else's authority of the same name.
    """
    own = bundles.get(svid.id.trust_domain)
    if len(svid.chain) > 1 or own is None:
        return svid.chain
    issuer = next((each.certificate for each in own.x509_authorities if _issued(each.certificate, svid.leaf)), None)
    return svid.chain if issuer is None else (*svid.chain, issuer)


def _issued(issuer: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
