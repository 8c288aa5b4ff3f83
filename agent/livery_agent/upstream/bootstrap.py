"""What the first connection knows the CA by: the operator's file, or (dangerous) whatever is there.

Owns: reading the trust bundle file, and the insecure bootstrap, which takes the authorities that the CA presents.
Does not own: what comes after; once attested, a node uses the bundle it was given and keeps.

The insecure way trusts on first use and no further: even within one attestation every connection but the very first is
verified against what that first one presented.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import grpc.aio
from cryptography import x509

from livery.errors import LiveryError
from livery.identity import IdentityError, SpiffeId, TrustBundle, TrustDomain, X509Authority, leaf_id
from livery.runtime.transport.peer import peer_chain
from livery.runtime.transport.tls_contexts import ALPN_HTTP2
from livery_agent.errors import CaAnswerUnusable, CaUnavailable, UnusableConfig
from livery_agent.upstream.connection import CaDialer

MAX_FILE = 4 * 1024 * 1024


def read_bundle_file(path: Path, form: Literal["pem", "spiffe"], trust_domain: TrustDomain) -> TrustBundle:
    """The authorities in the operator's file; raises `UnusableConfig`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise UnusableConfig(f"{path} is too long", why=f"more than {MAX_FILE} bytes")
        read = TrustBundle.from_pem if form == "pem" else TrustBundle.from_jwks
        bundle = read(trust_domain, data)
    except OSError as cause:
        fix = "write the CA's bundle there (`livery bundle show`)"
        raise UnusableConfig(f"the trust bundle {path} cannot be read", why=cause.strerror or "", fix=fix) from cause
    except IdentityError as cause:
        other = "spiffe" if form == "pem" else "pem"
        fix = f"set trust_bundle_format = {other!r}, if that is its form"
        raise UnusableConfig(f"the trust bundle {path} cannot be used", why=str(cause), fix=fix) from cause
    if not bundle.x509_authorities:
        raise UnusableConfig(f"the trust bundle {path} holds no certificate", fix="write the CA's bundle there")
    return bundle


async def presented_authorities(address: str, expected: SpiffeId, timeout: float) -> TrustBundle:
    """DANGEROUS: the authorities that whoever answers at `address` presents; it need only claim to be `expected`.

    Raises `CaUnavailable` if nobody answers, `CaAnswerUnusable` if the chain names somebody else or no authority.
    """
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN_HTTP2])
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
        try:
            chain = peer_chain(writer.get_extra_info("ssl_object"))
        finally:
            writer.transport.abort()
    except (OSError, TimeoutError) as cause:
        raise CaUnavailable(f"nobody answers at {address}", why=str(cause) or type(cause).__name__) from cause
    except IdentityError as cause:
        raise CaAnswerUnusable(f"what answers at {address} shows no usable certificate", why=str(cause)) from cause
    return _authorities(chain, expected)


def _authorities(chain: tuple[x509.Certificate, ...], expected: SpiffeId) -> TrustBundle:
    try:
        if not chain or leaf_id(chain[0]) != expected:
            raise CaAnswerUnusable(f"what answers does not claim to be {expected}")
        authorities = tuple(X509Authority(certificate) for certificate in chain[1:])
    except CaAnswerUnusable:
        raise
    except LiveryError as cause:
        raise CaAnswerUnusable("what answers shows a chain that cannot be used", why=str(cause)) from cause
    if not authorities:
        raise CaAnswerUnusable(
            "the CA presents no authority to trust",
            why="its chain is a leaf alone",
            fix="set trust_bundle_path instead of insecure_bootstrap",
        )
    return TrustBundle(expected.trust_domain, authorities)


class TrustOnFirstUse:
    """DANGEROUS: a dialer that trusts what the first connection presents. `dial` makes the real one from that."""

    def __init__(
        self, first_look: Callable[[], Awaitable[TrustBundle]], dial: Callable[[TrustBundle], CaDialer]
    ) -> None:
        self._first_look = first_look
        self._dial = dial
        self._dialer: CaDialer | None = None

    @property
    def last_refusal(self) -> str | None:
        """Why the last dial failed, if it did."""
        return self._dialer.last_refusal if self._dialer else None

    async def start(self) -> grpc.aio.Channel:
        """Look, trust, and dial."""
        self._dialer = self._dial(await self._first_look())
        return await self._dialer.start()

    async def close(self) -> None:
        """Close the dialer, if it came to that."""
        if self._dialer is not None:
            await self._dialer.close()
