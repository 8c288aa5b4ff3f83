"""What a policy server can be told: one frozen model, every field documented here and in docs/policy.md.

Owns: the fields, their defaults and their limits. Does not own: reading files and variables (`livery.runtime.config`).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, Field

from livery.errors import LiveryError
from livery.identity import IdentityError, SpiffeId
from livery.runtime.config import Duration, Section, Size
from livery.runtime.directories import runtime_directory, state_directory
from livery_policy.decisions.log import Written
from livery_policy.model.vocabulary import Vocabulary


def _spiffe_id(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except IdentityError as cause:
        raise ValueError(f"{cause.why or cause.what}; {cause.fix}") from None


def _https_url(url: str) -> str:
    """AuthZEN 9.1.1: https, and no query or fragment. No path either: 9.2.1 would have the metadata elsewhere."""
    parts = urlsplit(url)
    is_plain = parts.path in {"", "/"} and "?" not in url and "#" not in url and parts.username is None
    if parts.scheme != "https" or not parts.netloc or not is_plain:
        raise ValueError("write it as https://host:port, without path, query or fragment")
    return url.rstrip("/")


def _headers(names: tuple[str, ...]) -> tuple[str, ...]:
    return _vocabulary(names, ()).headers


def _claims(names: tuple[str, ...]) -> tuple[str, ...]:
    return _vocabulary((), names).claims


def _vocabulary(headers: tuple[str, ...], claims: tuple[str, ...]) -> Vocabulary:
    try:
        return Vocabulary(headers, claims)
    except LiveryError as cause:
        raise ValueError(f"{cause.what}; {cause.fix or cause.why}".removesuffix("; ")) from None


class PolicyConfig(Section):
    """Everything a policy server can be told."""

    policy_dir: Path = Field(default_factory=lambda: state_directory() / "policy" / "policies")
    """The directory of the policies: its `*.cedar` files, one level. Changes are loaded as they happen."""

    reload_interval: Annotated[Duration, Ge(timedelta(milliseconds=100)), Le(timedelta(hours=1))] = timedelta(seconds=2)
    """How often the directory is looked at for changes."""

    headers: Annotated[tuple[str, ...], AfterValidator(_headers)] = ()
    """Request headers that policies may read, in lower case; all others are dropped."""

    claims: Annotated[tuple[str, ...], AfterValidator(_claims)] = ()
    """Token claims that policies may read, besides `iss`, `sub` and `aud`; all others are dropped."""

    socket: Path = Field(default_factory=lambda: runtime_directory() / "policy" / "api.sock")
    """The unix socket for AuthZEN and administration. Callers are known by their UID."""

    socket_mode: Annotated[int, Ge(0), Le(0o777)] = 0o666
    """Permissions of that socket; who may do what is decided by UID, not by permissions."""

    listen_host: str = "localhost"
    """The address to listen on for AuthZEN over mutual TLS."""

    listen_port: Annotated[int, Ge(0), Le(65535)] | None = None
    """The port for it; 0 takes a free one. Without it there is the unix socket only."""

    public_url: Annotated[str, AfterValidator(_https_url)] | None = None
    """The https address that clients know this server by, for AuthZEN's metadata. Without it: `https://localhost:PORT`."""

    workload_endpoint: str | None = None
    """The Workload API that the TLS identity comes from; without it, the environment's `SPIFFE_ENDPOINT_SOCKET`."""

    identity_timeout: Annotated[Duration, Gt(timedelta(0)), Le(timedelta(hours=1))] = timedelta(seconds=30)
    """How long to wait for that identity at the start."""

    admit_uids: tuple[Annotated[int, Ge(0)], ...] | None = None
    """Users (UIDs) that may ask for decisions on the unix socket; without it, the server's own user and root."""

    admit_ids: tuple[Annotated[str, AfterValidator(_spiffe_id)], ...] = ()
    """SPIFFE IDs that may ask for decisions over TLS. Whoever may ask, may ask about any subject."""

    max_body: Annotated[Size, Ge(1024), Le(16 * 1024 * 1024)] = 256 * 1024
    """The longest request that is read."""

    max_evaluations: Annotated[int, Ge(1), Le(10_000)] = 100
    """The longest batch of one `evaluations` request."""

    decision_cache_size: Annotated[int, Ge(0), Le(10_000_000)] = 65536
    """How many answers are remembered; 0 remembers none."""

    decisions_kept: Annotated[int, Ge(1), Le(1_000_000)] = 4096
    """How many allowed, and how many denied decisions are kept in memory for `livery explain`."""

    decision_log: Written = Written.ALL
    """Which decisions get a log line: `all`, `denied` or `none`."""

    explained_per_second: Annotated[int, Ge(0), Le(100_000)] = 200
    """For how many denials a second the nearest policies are looked up at once; for the others, when one asks."""

    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """How much is logged."""

    log_format: Literal["json", "text"] = "json"
    """One JSON object per line, or plain lines for people."""

    def vocabulary(self) -> Vocabulary:
        """What policies may speak of."""
        return Vocabulary(self.headers, self.claims)
