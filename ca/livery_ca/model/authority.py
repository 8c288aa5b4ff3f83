"""A signing authority of the trust domain, its life, and the view of it that an issuer signs with.

Owns: `Authority` and its states, the events of its journal, `X509Signer` and `JwtSigner`. Does not own: which moves are
allowed and when (`authorities.states`), private keys (`keys`: an authority knows its key by name only).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509

from livery.identity import JwtKey


class AuthorityKind(StrEnum):
    """What an authority signs."""

    X509 = "x509"
    JWT = "jwt"


class AuthorityState(StrEnum):
    """Where an authority stands: prepared → active → old → (tainted) → retired."""

    PREPARED = "prepared"  # in the bundle, signs nothing yet
    ACTIVE = "active"  # signs; at most one per kind
    OLD = "old"  # signs no more, still trusted
    TAINTED = "tainted"  # still in the bundle, marked: everything it signed is to be replaced now
    RETIRED = "retired"  # out of the bundle, its key destroyed


@dataclass(frozen=True, slots=True)
class Authority:
    """One authority. `id` is the lower hex subject key id (X.509) or the `kid` (JWT).

    `chain` (X.509): the CA certificate first, then what stands between it and a root, without the root. `roots`: the
    anchors it brings into the bundle (a self-signed CA is its own). `jwt_key`: the public key (JWT).
    """

    id: str
    kind: AuthorityKind
    state: AuthorityState
    key_id: str
    issued_at: datetime
    not_before: datetime
    not_after: datetime
    chain: tuple[x509.Certificate, ...] = ()
    roots: tuple[x509.Certificate, ...] = ()
    jwt_key: JwtKey | None = None
    changed_at: datetime | None = None

    @property
    def lifetime(self) -> timedelta:
        """From issue to end; the backdate of NotBefore is not counted."""
        return self.not_after - self.issued_at


@dataclass(frozen=True, slots=True)
class AuthorityEvent:
    """One line of the authorities' journal. Key generation is journalled before it happens (`authority_id` empty)."""

    at: datetime
    kind: AuthorityKind
    key_id: str
    authority_id: str
    event: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class X509Signer:
    """The active X.509 authority as an issuer needs it.

    `chain_ders` is what follows a leaf in its chain: intermediates without the self-signed root (empty when the CA
    itself is the root).
    """

    authority_id: str
    key_id: str
    certificate: x509.Certificate
    chain_ders: tuple[bytes, ...]
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class JwtSigner:
    """The active JWT authority as an issuer needs it; `algorithm` is the JOSE name that fits the key."""

    authority_id: str
    key_id: str
    algorithm: str
    not_after: datetime
