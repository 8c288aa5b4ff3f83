"""The inside of a CA: what it remembers, who signs, and how; everything but its doors.

Owns: wiring these parts, and the order in which they start and stop. Does not own: doors (`main`), or any decision.

Order: what is remembered (store, keys), who signs (authorities), the last run accounted for (issuer), who we are
(server identity). The store is opened first and closed last, so that whatever is under way finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from livery.identity import TrustDomain
from livery.runtime.audit import Audit
from livery.runtime.clock import Clock
from livery.runtime.metrics import Metrics
from livery_ca.authorities import Authorities, AuthorityParts, AuthoritySettings
from livery_ca.config import CaConfig
from livery_ca.issuance.jwt import JwtIssuer
from livery_ca.issuance.pipeline import Checkpoint, Issuer, IssuerParts
from livery_ca.issuance.timekeeping import TimeGuard
from livery_ca.issuance.workers import Workers
from livery_ca.keys.disk import DiskKeyStore
from livery_ca.server_svid import ServerIdentity, ServerSettings
from livery_ca.store import Store
from livery_ca.store.errors import StoreMissing
from livery_ca.upstreams.self_signed import SelfSigned

_DATABASE, _KEYS = "ca.sqlite", "keys"  # in the state directory


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a CA is given: its time, where it tells what it does, and who is told of its steps (a test may be)."""

    clock: Clock
    audit: Audit
    metrics: Metrics
    checkpoint: Checkpoint = lambda _: None


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts, started."""

    store: Store
    keys: DiskKeyStore
    guard: TimeGuard
    authorities: Authorities
    issuer: Issuer
    jwt_issuer: JwtIssuer
    identity: ServerIdentity


@asynccontextmanager
async def opened(config: CaConfig, around: Surroundings) -> AsyncIterator[Engine]:
    """A started engine. Raises why it cannot start; what was opened by then is closed again."""
    _refuse_keys_without_a_store(config.state_dir)
    store = await Store.open(config.state_dir / _DATABASE, clock=around.clock)
    workers = Workers()
    issuer: Issuer | None = None
    try:
        engine = await _assembled(config, around, store, workers)
        issuer = engine.issuer
        yield engine
    finally:
        if issuer is not None:
            await issuer.close()
        await workers.close()
        await store.close()


def _refuse_keys_without_a_store(state: Path) -> None:
    """Raise `StoreMissing` where a new trust domain would silently take the place of the one whose database is gone.

    A first start makes its database before its first key, so even one that was killed in between is not taken for this.
    """
    database = state / _DATABASE
    if _has_keys(state) and (not database.exists() or database.stat().st_size == 0):
        raise _store_missing(state)


async def _refuse_keys_beside_an_unclaimed_store(state: Path, store: Store) -> None:
    """The same for a database that is there and holds nothing, as a copy that was made without its `-wal`.

    A first start claims its database before its first key.
    """
    if _has_keys(state) and await store.authorities.owner() is None:
        raise _store_missing(state)


def _has_keys(state: Path) -> bool:
    keys = state / _KEYS
    return keys.is_dir() and any(keys.iterdir())


def _store_missing(state: Path) -> StoreMissing:
    database = state / _DATABASE
    return StoreMissing(
        f"the database of this CA is gone: {database} is missing or empty",
        why=f"{state / _KEYS} holds keys of authorities that only the database can name",
        fix=f"restore {database} from a backup, with its -wal if there is one, "
        f"or move {state} away to begin a new trust domain",
    )


async def _assembled(config: CaConfig, around: Surroundings, store: Store, workers: Workers) -> Engine:
    clock, metrics, domain = around.clock, around.metrics, TrustDomain(config.trust_domain)
    await _refuse_keys_beside_an_unclaimed_store(config.state_dir, store)
    kek = config.key_encryption_key or config.state_dir / "key-encryption.key"
    keys = await asyncio.to_thread(DiskKeyStore.open, config.state_dir / _KEYS, kek)
    guard = TimeGuard(clock, await store.journal.last_time())
    parts = AuthorityParts(store.authorities, keys, SelfSigned(keys), clock, guard, metrics, around.audit)
    authorities = Authorities(
        parts,
        AuthoritySettings(domain, config.ca_ttl, ca_key_type=config.ca_key_type, jwt_key_type=config.jwt_key_type),
    )
    issuing = IssuerParts(store.journal, keys, authorities, guard, workers, metrics)
    issuer = Issuer(issuing, checkpoint=around.checkpoint)
    identity = ServerIdentity(issuer, authorities, clock, ServerSettings(domain, config.agent_svid_ttl))
    await authorities.start()
    await issuer.start()
    await identity.start()
    return Engine(store, keys, guard, authorities, issuer, JwtIssuer(issuing, config.jwt_issuer or None), identity)
