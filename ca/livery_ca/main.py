"""The CA as a role: its engine, its doors, and what runs between them.

Owns: wiring doors to the engine, what listens where, the tasks that run by themselves. Does not own: the engine's
inside (`engine`), configuration files, signals and exit codes (the command), or any decision.

Invariants: doors open last and close first; the word that we are ready comes after both listen; a task that ends by an
error ends the CA, loudly.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from livery.identity import SpiffeId, TrustDomain
from livery.runtime.audit import AuditLog
from livery.runtime.clock import Clock
from livery.runtime.front_door import FrontDoor
from livery.runtime.http import HttpServer
from livery.runtime.lifecycle import all_at_once
from livery.runtime.logging import configure, get_logger
from livery.runtime.metrics import Metrics
from livery.runtime.quantities import format_duration
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import Listen, TcpListen, UnixListen
from livery.wire import (
    agent_api,
    bundle_api,
    debug_api,
    entry_api,
    livery_api,
    localauthority_api,
    logger_api,
    svid_api,
    trustdomain_api,
)
from livery_ca import engine as engines
from livery_ca.attest.attestor import NodeAttestor
from livery_ca.attest.authorities import read_authorities
from livery_ca.attest.join_token import JoinTokenAttestor
from livery_ca.attest.pop_chain import ChainLimits
from livery_ca.attest.x509pop import X509PopAttestor
from livery_ca.config import CaConfig
from livery_ca.doors.absent import LocalAuthorityDoor, TrustDomainDoor
from livery_ca.doors.agent import AgentDoor
from livery_ca.doors.bundle import BundleDoor
from livery_ca.doors.debug import DebugDoor
from livery_ca.doors.delivery import DeliveryDoor
from livery_ca.doors.entry import EntryDoor
from livery_ca.doors.entry_changes import EntryChanges
from livery_ca.doors.guard.gate import Gate
from livery_ca.doors.guard.limits import Limits, LimitSettings
from livery_ca.doors.joining import Joining
from livery_ca.doors.logger import LoggerDoor
from livery_ca.doors.probes import HealthDoor, Probes
from livery_ca.doors.svid import SvidDoor, SvidTtls
from livery_ca.engine import Engine, Surroundings
from livery_ca.entries.catalog import Catalog
from livery_ca.entries.deliveries import Deliveries
from livery_ca.health import Health
from livery_ca.upkeep import Upkeep, UpkeepParts

STOP_GRACE = 3.0  # seconds for calls under way
ADMIN_LIMITS = DoorLimits(connections=256, per_uid=256)

OnReady = Callable[[Mapping[str, object]], None]
AddService = Callable[[grpc.aio.Server], None]

log = get_logger(__name__)


async def run(config: CaConfig, clock: Clock, on_ready: OnReady) -> None:
    """Be a CA until cancelled, logging to stderr. `on_ready` is called once, when everybody can call."""
    sink = configure("ca", config.log_level, json=config.log_format == "json", clock=clock)
    await serve(config, Surroundings(clock, AuditLog("ca", sink, clock), Metrics()), on_ready)


async def serve(config: CaConfig, around: Surroundings, on_ready: OnReady) -> None:
    """Be a CA until cancelled. Raises why it cannot start, or what ended it."""
    _warn_of_long_ttls(config)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(engines.opened(config, around))
        ca = Ca.built(config, around, engine)
        tcp, unix = ca.doors()
        for door in (tcp, unix):
            await door.start()
            stack.push_async_callback(door.stop, STOP_GRACE)
        if config.metrics_socket is not None:
            await stack.enter_async_context(ca.probes(UnixListen(config.metrics_socket, 0o600, _is_administrator)))
        await ca.catalog.catch_up()
        on_ready({"address": tcp.address, "socket": unix.address, "trust_domain": config.trust_domain})
        await all_at_once(ca.work())


@dataclass(frozen=True, slots=True)
class Ca:
    """What the doors share."""

    config: CaConfig
    around: Surroundings
    engine: Engine
    catalog: Catalog
    deliveries: Deliveries
    gate: Gate
    limits: Limits
    health: Health

    @classmethod
    def built(cls, config: CaConfig, around: Surroundings, engine: Engine) -> Ca:
        """The shared parts, around this engine."""
        store = engine.store
        admin_ids = [SpiffeId.parse(each) for each in config.admin_ids]
        return cls(
            config=config,
            around=around,
            engine=engine,
            catalog=Catalog(store.entries, store.changes, around.clock),
            deliveries=Deliveries(),
            gate=Gate(store.nodes, store.entries, admin_ids, around.clock, around.audit),
            limits=Limits(_limit_settings(config), around.clock),
            health=Health(around.metrics),
        )

    def doors(self) -> tuple[FrontDoor, FrontDoor]:
        """The agents' door and the administrators'."""
        config = self.config
        tcp = TcpListen(config.listen_host, config.listen_port, self.engine.identity)
        unix = UnixListen(config.admin_socket, 0o600, _is_administrator)
        limits = DoorLimits(connections=config.limits.max_connections)
        return self._door(tcp, self._services(), limits), self._door(unix, self._local_services(), ADMIN_LIMITS)

    def probes(self, listen: UnixListen) -> HttpServer:
        """Health and metrics over HTTP."""
        around = self.around
        app = Probes(self.health, around.metrics)
        return HttpServer(app, listen, clock=around.clock, audit=around.audit, metrics=around.metrics)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs by itself until the CA ends."""
        engine = self.engine
        upkeep = Upkeep(
            UpkeepParts(
                store=engine.store,
                keys=engine.keys,
                guard=engine.guard,
                authorities=engine.authorities,
                issuer=engine.issuer,
                identity=engine.identity,
                limits=self.limits,
                health=self.health,
                clock=self.around.clock,
                journal_kept=self.config.journal_kept,
            )
        )
        return [engine.authorities.run(), engine.identity.run(), self.catalog.follow(), upkeep.run()]

    def _door(self, listen: Listen, services: Sequence[AddService], limits: DoorLimits) -> FrontDoor:
        return FrontDoor(
            listen,
            services=services,
            run_dir=self.config.state_dir / "run",
            clock=self.around.clock,
            audit=self.around.audit,
            metrics=self.around.metrics,
            limits=limits,
            guards=(self.gate,),
        )

    def _services(self) -> list[AddService]:
        domain, engine, around = TrustDomain(self.config.trust_domain), self.engine, self.around
        store, clock, audit = engine.store, around.clock, around.audit
        joining = Joining(self._attestors(), store.nodes, engine.issuer, self.config.agent_svid_ttl, clock, audit)
        ttls = SvidTtls(self.config.default_x509_svid_ttl, self.config.default_jwt_svid_ttl)
        changes = EntryChanges(domain, store.entries, clock, audit)
        agents = AgentDoor(domain, store.nodes, store.tokens, joining, self.limits, clock, audit)
        entries = EntryDoor(domain, store.entries, changes, self.catalog, self.deliveries, self.gate, clock)
        svids = SvidDoor(domain, self.catalog, engine.issuer, engine.jwt_issuer, ttls, self.limits, clock, audit)
        bundles = BundleDoor(domain, engine.authorities, store.bundles)
        delivery = DeliveryDoor(store.nodes, store.changes, self.deliveries, clock)
        return [
            lambda server: agent_api.add_AgentServicer_to_server(agents, server),
            lambda server: entry_api.add_EntryServicer_to_server(entries, server),
            lambda server: svid_api.add_SVIDServicer_to_server(svids, server),
            lambda server: bundle_api.add_BundleServicer_to_server(bundles, server),
            lambda server: livery_api.add_DeliveryServicer_to_server(delivery, server),
            lambda server: trustdomain_api.add_TrustDomainServicer_to_server(TrustDomainDoor(), server),
            lambda server: localauthority_api.add_LocalAuthorityServicer_to_server(LocalAuthorityDoor(), server),
        ]

    def _local_services(self) -> list[AddService]:
        clock = self.around.clock
        debug = DebugDoor(self.engine.store, self.engine.identity, clock, clock.monotonic())
        logger = LoggerDoor(logging.getLogger(), self.around.audit)
        health = HealthDoor(self.health)
        return [
            *self._services(),
            lambda server: debug_api.add_DebugServicer_to_server(debug, server),
            lambda server: logger_api.add_LoggerServicer_to_server(logger, server),
            lambda server: health_pb2_grpc.add_HealthServicer_to_server(health, server),
        ]

    def _attestors(self) -> dict[str, NodeAttestor]:
        domain, pop = TrustDomain(self.config.trust_domain), self.config.x509pop
        found: list[NodeAttestor] = []
        if self.config.join_token.enabled:
            found.append(JoinTokenAttestor(domain, self.engine.store.tokens))
        if pop is not None:
            limits = ChainLimits(pop.max_intermediates, pop.max_rsa_key_size)
            found.append(X509PopAttestor(domain, read_authorities(pop.ca_bundle_paths), limits))
        return {attestor.type: attestor for attestor in found}


def _is_administrator(uid: int) -> bool:
    return uid in {0, os.geteuid()}


def _limit_settings(config: CaConfig) -> LimitSettings:
    chosen = config.limits
    return LimitSettings(
        attestation=chosen.attestation or None,
        x509_signing=chosen.x509_signing or None,
        jwt_signing=chosen.jwt_signing or None,
        post_status=chosen.post_status or None,
    )


def _warn_of_long_ttls(config: CaConfig) -> None:
    """Say which lifetimes will be cut short by the end of the CA that signs them."""
    ttls: dict[str, timedelta] = {
        "default_x509_svid_ttl": config.default_x509_svid_ttl,
        "agent_svid_ttl": config.agent_svid_ttl,
        "default_jwt_svid_ttl": config.default_jwt_svid_ttl,
    }
    for name, ttl in ttls.items():
        if ttl > config.uncut_ttl:
            fix = f"set {name} to {format_duration(config.uncut_ttl)} at most, or ca_ttl to {format_duration(6 * ttl)}"
            log.warning("some SVIDs will live shorter than asked for", setting=name, fix=fix)
