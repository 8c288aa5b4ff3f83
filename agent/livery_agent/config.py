"""What an agent can be told: one frozen model, every field documented here and in docs/agent.md.

Owns: the fields, their defaults and their limits, and which node attestation was chosen (exactly one table). Does not
own: reading files and variables (`livery.runtime.config`).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, Field, SecretStr, model_validator

from livery.identity import IdentityError, TrustDomain
from livery.runtime.config import Duration, Section, Size
from livery.runtime.directories import runtime_directory, state_directory


def _trust_domain(name: str) -> str:
    try:
        return TrustDomain.parse(name).name
    except IdentityError as cause:
        raise ValueError(f"{cause.why or cause.what}; {cause.fix}") from None


def _host_and_port(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("write it as host:port, as in ca.example.org:8081 or [::1]:8081")
    return address


class JoinTokenSettings(Section):
    """Attest by a one-time token (`[agent.join_token]`). Such a node cannot attest again by itself."""

    path: Path | None = None
    """File that holds the token; private to the agent's user (0600)."""

    value: SecretStr | None = None
    """The token itself; prefer `path`, which shows in no environment."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.value is None):
            raise ValueError("give exactly one of path and value")
        return self


class X509PopSettings(Section):
    """Attest by a certificate the CA's operator trusts (`[agent.x509pop]`). Such a node can always attest again."""

    certificate_path: Path
    """PEM certificate of this node, its intermediates after it or in `intermediates_path`."""

    private_key_path: Path
    """PEM private key of that certificate; private to the agent's user (0600)."""

    intermediates_path: Path | None = None
    """PEM intermediates, if they are in a file of their own."""


class UnixSettings(Section):
    """How processes of this machine are looked at (`[agent.unix]`)."""

    hash_limit: Annotated[Size, Ge(0)] = 256 * 1024 * 1024
    """Programs larger than this get no `unix:sha256` selector; `0B` means none is ever hashed."""


class LimitsSettings(Section):
    """Bounds of the Workload API (`[agent.limits]`)."""

    max_connections: Annotated[int, Ge(16), Le(200_000)] = 2048
    """Connections at once. Each may need four file descriptors; the agent refuses to start with too few."""

    max_connections_per_user: Annotated[int, Ge(1), Le(200_000)] = 1536
    """How many of them one user (UID) may hold."""

    max_streams: Annotated[int, Ge(1), Le(1_000_000)] = 4096
    """Streams at once: a client holds one for its SVIDs, and may hold two more for bundles."""

    max_streams_per_user: Annotated[int, Ge(1), Le(1_000_000)] = 3072
    """How many of them one user (UID) may hold."""

    write_timeout: Annotated[Duration, Gt(timedelta(0)), Lt(timedelta(hours=1))] = timedelta(seconds=30)
    """A stream whose client does not take an update for this long is closed."""


class AgentConfig(Section):
    """Everything an agent can be told."""

    trust_domain: Annotated[str, AfterValidator(_trust_domain)]
    """The trust domain this node belongs to, as in `example.org`."""

    ca_address: Annotated[str, AfterValidator(_host_and_port)]
    """Where the CA listens for agents, as `host:port`."""

    trust_bundle_path: Path | None = None
    """The CA's certificates, by which the first connection knows it; later ones use the bundle in `state_dir`."""

    trust_bundle_format: Literal["pem", "spiffe"] = "pem"
    """The form of `trust_bundle_path`: PEM certificates, or a SPIFFE bundle (JSON)."""

    insecure_bootstrap: bool = False
    """DANGEROUS: trust whoever answers first at `ca_address`. For experiments on one machine only."""

    join_token: JoinTokenSettings | None = None
    """Node attestation by join token."""

    x509pop: X509PopSettings | None = None
    """Node attestation by proof of possession of a certificate's key."""

    unix: UnixSettings = UnixSettings()
    """Workload attestation of local processes."""

    state_dir: Path = Field(default_factory=lambda: state_directory() / "agent")
    """Where the node's key, SVID and bundle are kept (0700)."""

    workload_socket: Path = Field(default_factory=lambda: runtime_directory() / "agent" / "workload.sock")
    """The SPIFFE Workload API. Applications find it by `SPIFFE_ENDPOINT_SOCKET=unix:<this path>`."""

    workload_socket_mode: Annotated[int, Ge(0), Le(0o777)] = 0o777
    """Permissions of the Workload API's socket; who calls is found out by attestation, not by permissions."""

    admin_socket: Path = Field(default_factory=lambda: runtime_directory() / "agent" / "admin.sock")
    """Health, metrics and `livery inspect`, read-only (0600, the agent's user and root)."""

    sync_interval: Annotated[Duration, Ge(timedelta(milliseconds=100)), Le(timedelta(minutes=10))] = timedelta(
        seconds=5
    )
    """How often the CA is asked for entries and bundles."""

    rpc_timeout: Annotated[Duration, Gt(timedelta(0)), Le(timedelta(minutes=10))] = timedelta(seconds=30)
    """How long one call to the CA may take."""

    jwt_svid_cache_size: Annotated[int, Ge(1), Le(1_000_000)] = 1000
    """How many JWT-SVIDs are kept for reuse until half of their life is over."""

    allow_unauthenticated_verifiers: bool = False
    """Give this trust domain's bundles to local processes without an identity too, so that they can verify others."""

    limits: LimitsSettings = LimitsSettings()
    """How much one user, and everybody together, may hold of the Workload API."""

    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """How much is logged."""

    log_format: Literal["json", "text"] = "json"
    """One JSON object per line, or plain lines for people."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.join_token is None) == (self.x509pop is None):
            raise ValueError("choose one node attestation: a table [agent.join_token] or [agent.x509pop]")
        if self.insecure_bootstrap and self.trust_bundle_path is not None:
            raise ValueError(
                "insecure_bootstrap and trust_bundle_path contradict each other: remove insecure_bootstrap"
            )
        if not self.insecure_bootstrap and self.trust_bundle_path is None:
            raise ValueError("trust_bundle_path is required: the first connection must know the CA by something")
        return self
