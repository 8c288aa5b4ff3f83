"""What the authority needs of whoever certifies its CA key.

Owns: the Protocol, its request and answer, its errors. Does not own: when a new CA certificate is due (`authorities`).

`mint` may block (a network, an HSM): it is run in a worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Protocol

from cryptography import x509

from livery.errors import Kind, LiveryError
from livery.identity import TrustDomain
from livery_ca.certificates.algorithm import PublicKey


class UpstreamError(LiveryError):
    """The upstream gave no CA certificate, or not the one that was asked for."""

    code: ClassVar[str] = "upstream"


class UpstreamUnavailable(UpstreamError):
    """The upstream does not answer now."""

    code: ClassVar[str] = "upstream_unavailable"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class CaRequest:
    """A CA certificate for this key, which the key store holds under `key_id`, valid for `ttl` from `at` on."""

    trust_domain: TrustDomain
    key_id: str
    public_key: PublicKey
    ttl: timedelta
    at: datetime


@dataclass(frozen=True, slots=True)
class MintedCa:
    """What came back. `chain`: the CA first, then intermediates, without a root. `roots`: the anchors above it.

    A self-signed CA is alone in its chain and is its own root.
    """

    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]


class Upstream(Protocol):
    """Certifies the keys of our authorities."""

    def mint(self, request: CaRequest) -> MintedCa:
        """A CA certificate as requested. Raises an `UpstreamError`, or what signing raises."""
        ...
