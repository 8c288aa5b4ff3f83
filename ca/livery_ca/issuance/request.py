"""What an issuer is asked for, and what it answers.

Owns: the frozen request and the two answers. Does not own: parsing CSRs (`certificates.csr`), entitlement (`entries`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from livery.errors import LiveryError
from livery.identity import SpiffeId
from livery_ca.certificates.profile import Profile, PublicKey
from livery_ca.store.writes import Write


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was signed, verified and recorded. `chain_ders`: leaf first, without the self-signed root."""

    serial: int
    spiffe_id: SpiffeId
    chain_ders: tuple[bytes, ...]
    not_before: datetime
    not_after: datetime
    log_index: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that was not issued, and why. The other items of its group are not touched by it."""

    error: LiveryError


OnRecord = Callable[[Issued], Sequence[Write]]
"""Says what is to be written in the transaction that records this certificate. Runs before it; must be pure."""


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """One leaf certificate, already authorized. Every name and lifetime comes from here; of a CSR only its key does.

    `asked_by`: the caller's SPIFFE ID or the name of the local door. `authorized_by`: the rule, with its version, that
    allowed it. `subject`: for the mint profile only, as SPIRE takes it from the CSR; None means the profile's own.
    """

    profile: Profile
    spiffe_id: SpiffeId
    public_key: PublicKey
    ttl: timedelta
    asked_by: str
    dns_names: tuple[str, ...] = ()
    subject: x509.Name | None = None
    entry_id: str | None = None
    authorized_by: str = ""
    on_record: OnRecord | None = None


@dataclass(frozen=True, slots=True)
class JwtRequest:
    """One JWT-SVID, already authorized. `jti`: whether the token carries one (an entry's `jwt_svid_include_jti`)."""

    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    ttl: timedelta
    asked_by: str
    jti: bool = False
    entry_id: str | None = None
    authorized_by: str = ""


@dataclass(frozen=True, slots=True)
class IssuedJwt:
    """A JWT-SVID that was signed, verified and recorded. The token is a bearer secret: it is left out of `repr`."""

    token: str
    spiffe_id: SpiffeId
    issued_at: datetime
    expires_at: datetime

    def __repr__(self) -> str:
        return f"IssuedJwt({self.spiffe_id}, expires_at={self.expires_at.isoformat()})"
