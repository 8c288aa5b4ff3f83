"""What a CA can be told: one frozen model, every field documented here and in docs/ca.md.

Owns: the fields, their defaults and their limits, and what must fit together. Does not own: reading files and variables
(`livery.runtime.config`), or what each part does with its settings.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, Field, model_validator

from livery.identity import IdentityError, SpiffeId, TrustDomain
from livery.runtime.config import Duration, Section
from livery.runtime.directories import runtime_directory, state_directory
from livery_ca.certificates.algorithm import KeyType
from livery_ca.certificates.profile import MIN_LIFETIME

Ttl = Annotated[Duration, Ge(MIN_LIFETIME), Le(timedelta(days=366 * 10))]
CaTtl = Annotated[Duration, Ge(timedelta(minutes=1)), Le(timedelta(days=366 * 10))]
PerSecond = Annotated[int, Ge(0), Le(1_000_000)]


def _trust_domain(name: str) -> str:
    try:
        return TrustDomain.parse(name).name
    except IdentityError as cause:
        raise ValueError(f"{cause.why or cause.what}; {cause.fix}") from None


def _spiffe_id(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except IdentityError as cause:
        raise ValueError(f"{cause.why or cause.what}; {cause.fix}") from None


class JoinTokenSettings(Section):
    """Node attestation by join tokens (`[ca.join_token]`)."""

    enabled: bool = True
    """Whether nodes may join with a token that an administrator created."""


class X509PopSettings(Section):
    """Node attestation by certificates of your own PKI (`[ca.x509pop]`); without this table there is none."""

    ca_bundle_paths: Annotated[tuple[Path, ...], MinLen(1)]
    """PEM files with the authorities that issue node certificates. Read at start."""

    max_intermediates: Annotated[int, Ge(0), Le(16)] = 4
    """How many intermediates a node may send along."""

    max_rsa_key_size: Annotated[int, Ge(2048), Le(16384)] = 8192
    """The largest RSA key, in bits, that is looked at in a node's chain."""


class LimitsSettings(Section):
    """Calls per second that one address may make (`[ca.limits]`); `0` lifts a limit.

    Callers wait their turn for up to 30 s. The administrators' socket is not limited.
    """

    attestation: PerSecond = 1
    """AttestAgent."""

    x509_signing: PerSecond = 500
    """X.509 certificates, whether by BatchNewX509SVID (each item counts) or RenewAgent."""

    jwt_signing: PerSecond = 500
    """NewJWTSVID."""

    post_status: PerSecond = 10
    """PostStatus."""

    max_connections: Annotated[int, Ge(64), Le(200_000)] = 2048
    """Connections of agents at once. Each may need four file descriptors; the CA refuses to start with too few."""


class CaConfig(Section):
    """Everything a CA can be told."""

    trust_domain: Annotated[str, AfterValidator(_trust_domain)]
    """The trust domain this CA is the authority of, as in `example.org`. It cannot be changed later."""

    state_dir: Path = Field(default_factory=lambda: state_directory() / "ca")
    """Where the database and the encrypted keys are kept (0700)."""

    key_encryption_key: Path | None = None
    """The file that opens the keys in `state_dir` (0600), made at the first start; without it they are lost.

    By default `key-encryption.key` in `state_dir`. Elsewhere, a copy of `state_dir` alone gives nobody the keys."""

    ca_key_type: KeyType = KeyType.EC_P256
    """The type of CA keys made from now on: `ec-p256`, `ec-p384`, `rsa-2048` or `rsa-4096`."""

    jwt_key_type: KeyType = KeyType.EC_P256
    """The type of JWT keys made from now on; Amazon's and Azure's OIDC federation want `rsa-2048`."""

    listen_host: str = "127.0.0.1"
    """The address on which agents connect; `0.0.0.0` or `::` for all."""

    listen_port: Annotated[int, Ge(0), Le(65535)] = 8081
    """The port on which agents connect; `0` takes a free one."""

    admin_socket: Path = Field(default_factory=lambda: runtime_directory() / "ca" / "admin.sock")
    """The administrators' socket (0600). Whoever it lets in is a full administrator: the CA's own user, and root."""

    metrics_socket: Path | None = None
    """A unix socket that serves `/metrics`, `/live` and `/ready` over HTTP (0600); off unless given."""

    ca_ttl: CaTtl = timedelta(hours=24)
    """How long a CA certificate and a JWT key live, a minute at least. The next one is prepared at half of it."""

    default_x509_svid_ttl: Ttl = timedelta(hours=1)
    """How long a workload's certificate lives whose entry does not say."""

    agent_svid_ttl: Ttl = timedelta(hours=1)
    """How long an agent's own certificate lives: the longest outage after which a join-token node can still renew."""

    default_jwt_svid_ttl: Ttl = timedelta(minutes=5)
    """How long a JWT-SVID lives whose entry does not say."""

    journal_kept: Annotated[Duration, Ge(timedelta(0)), Le(timedelta(days=366 * 100))] = timedelta(days=90)
    """How long the journal keeps what it knows of a certificate or token (who, for whom, which entry) after its end.

    About 1 kB each. The issuance log itself, 32 bytes for each certificate, is never shortened."""

    jwt_issuer: str = ""
    """The `iss` claim of JWT-SVIDs; empty leaves it out. For OIDC federation, the URL of the discovery document."""

    admin_ids: tuple[Annotated[str, AfterValidator(_spiffe_id)], ...] = ()
    """SPIFFE IDs of this trust domain that may administer over TCP, beside those whose entry says `admin`."""

    join_token: JoinTokenSettings = JoinTokenSettings()
    """Node attestation by join token."""

    x509pop: X509PopSettings | None = None
    """Node attestation by proof of possession of a certificate's key."""

    limits: LimitsSettings = LimitsSettings()
    """How much one address, and everybody together, may ask for."""

    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """How much is logged."""

    log_format: Literal["json", "text"] = "json"
    """One JSON object per line, or plain lines for people."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        for name in ("default_x509_svid_ttl", "agent_svid_ttl", "default_jwt_svid_ttl"):
            if getattr(self, name) > self.ca_ttl:
                raise ValueError(f"{name} is longer than ca_ttl: make it a sixth at most, then it is never cut short")
        for admin in self.admin_ids:
            if not SpiffeId.parse(admin).member_of(TrustDomain(self.trust_domain)):
                raise ValueError("admin_ids must be of this trust domain: bundles of others cannot be imported yet")
        return self

    @property
    def uncut_ttl(self) -> timedelta:
        """The longest SVID lifetime that is never cut: what a CA has left when the next one takes over."""
        return min(self.ca_ttl / 6, timedelta(days=7))
