"""The agent: its parts put together, started, and stopped in order.

Owns: wiring, the state directory's lock, and the order of start and stop. Does not own: configuration files, signals
and exit codes (the command), or any decision.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version

from livery.identity import BundleMap, SpiffeId, TrustBundle, TrustDomain, X509Svid
from livery.runtime.audit import Audit, AuditLog
from livery.runtime.clock import Clock
from livery.runtime.dialer import Dialer
from livery.runtime.files import StateLock, passable_directory, private_directory, sweep_leftovers
from livery.runtime.front_door import FrontDoor
from livery.runtime.http import HttpOptions, HttpServer
from livery.runtime.logging import configure, get_logger
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import UnixListen
from livery_agent.attest.node.attestor import NodeAttestor
from livery_agent.attest.node.join_token import JoinTokenAttestor
from livery_agent.attest.node.x509pop import X509PopAttestor
from livery_agent.attest.workload.attestation import WorkloadAttestation
from livery_agent.attest.workload.unix import UnixAttestor
from livery_agent.config import AgentConfig
from livery_agent.doors.admin import AdminDoor
from livery_agent.doors.health import Health
from livery_agent.doors.places import Places
from livery_agent.doors.workload_api import DoorParts, WorkloadApi
from livery_agent.identities.jwt_svids import JwtSvids
from livery_agent.identities.snapshot import Snapshot, Snapshots
from livery_agent.inspection.document import Scene
from livery_agent.inspection.status import Status
from livery_agent.inspection.telemetry import watch
from livery_agent.keeper import Keeper, KeeperParts, Terms
from livery_agent.keeper.renewal import Signer
from livery_agent.node import Node, NodeParts
from livery_agent.node.seal import Seal
from livery_agent.upstream import Upstream
from livery_agent.upstream.bootstrap import TrustOnFirstUse, presented_authorities, read_bundle_file
from livery_agent.upstream.connection import CaConnection, CaDialer

CA_PATH = "/spire/server"
MAX_ANSWER = 64 * 1024 * 1024  # bytes: a page of entries, a bundle
MAX_REQUEST = 256 * 1024  # bytes: a token and its audience
MAX_REQUESTS = 1024  # at once, for tokens and their validation: what waits for the CA holds its request
MAX_REQUESTS_PER_USER = 512
STOP_GRACE = 1.0  # seconds for calls of the Workload API; streams would stay for ever
FIRST_STEP = 15.0  # seconds that the first attempt may hold up the word that we are ready

OnReady = Callable[[Mapping[str, object]], None]

log = get_logger(__name__)


async def run(config: AgentConfig, clock: Clock, on_ready: OnReady) -> None:
    """Be an agent until cancelled, logging to stderr; see `serve`."""
    sink = configure("agent", config.log_level, json=config.log_format == "json", clock=clock)
    await serve(config, clock, AuditLog("agent", sink, clock), on_ready)


async def serve(config: AgentConfig, clock: Clock, audit: Audit, on_ready: OnReady) -> None:
    """Be an agent until cancelled.

    `on_ready` is called once, when the sockets listen and the first attempt to reach the CA has ended, well or badly:
    an agent serves what it has whether or not the CA is there. Raises `NodeLost` when the CA will not have this node.
    """
    private_directory(config.state_dir)
    with StateLock(config.state_dir / "lock"):
        sweep_leftovers(config.state_dir)
        agent = Agent(config, clock, audit)
        async with AsyncExitStack() as stack:
            await agent.open(stack)
            keeping = asyncio.create_task(agent.keeper.run())
            stack.push_async_callback(_cancelled, keeping)
            first = asyncio.create_task(agent.keeper.first_step.wait())
            await asyncio.wait({keeping, first}, timeout=FIRST_STEP, return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            if not keeping.done():
                on_ready(agent.addresses())
            await keeping


async def _cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Ca:
    """Where the CA is and how it is dialled."""

    config: AgentConfig
    clock: Clock
    snapshots: Snapshots

    @property
    def id(self) -> SpiffeId:
        return SpiffeId.of(self.snapshots.current.trust_domain, CA_PATH)

    def dial(self, svid: X509Svid | None) -> CaDialer:
        """As this node, trusting the bundle of the moment."""
        return self._dialer(svid, self._own)

    def dial_to_join(self, trusted: TrustBundle | None) -> CaDialer:
        """As nobody yet, trusting this bundle, or (insecure) whoever is there."""
        if trusted is not None:
            return self._dialer(None, lambda: BundleMap.of(trusted))
        log.warning("insecure_bootstrap: trusting whoever answers", ca_address=self.config.ca_address)
        patience = self.config.rpc_timeout.total_seconds()
        return TrustOnFirstUse(
            lambda: presented_authorities(self.config.ca_address, self.id, patience), self.dial_to_join
        )

    def _own(self) -> BundleMap:
        own = self.snapshots.current.bundle
        return BundleMap.of(own) if own is not None else BundleMap()

    def _dialer(self, svid: X509Svid | None, bundles: Callable[[], BundleMap]) -> CaDialer:
        return Dialer(
            address=self.config.ca_address,
            expected=self.id,
            identity=lambda: svid,
            bundles=bundles,
            run_dir=self.config.state_dir / "run",
            clock=self.clock,
            options=(("grpc.max_receive_message_length", MAX_ANSWER),),
        )


class Agent:
    """All parts of one agent."""

    def __init__(self, config: AgentConfig, clock: Clock, audit: Audit) -> None:
        self._config = config
        self._clock = clock
        self._audit = audit
        self._metrics = Metrics()
        self._version = version("livery")
        trust_domain = TrustDomain.parse(config.trust_domain)
        self.snapshots = Snapshots(Snapshot(trust_domain, BundleMap()))
        self._status = Status(clock.now())
        ca = _Ca(config, clock, self.snapshots)
        self._connection = CaConnection(ca.dial)
        self._upstream = Upstream(self._connection, ca.dial_to_join, config.rpc_timeout)
        self._jwt_svids = JwtSvids(self._upstream, config.jwt_svid_cache_size, clock, random.random)
        self._unix = UnixAttestor(config.unix.hash_limit, clock)
        self._streams = Places("streams", config.limits.max_streams, config.limits.max_streams_per_user)
        self._node = self._make_node(Seal(config.state_dir, trust_domain))
        self.keeper = self._make_keeper(Seal(config.state_dir, trust_domain))
        watch(self._metrics, self.scene, clock)

    def _make_node(self, seal: Seal) -> Node:
        return Node(
            NodeParts(
                trust_domain=self.snapshots.current.trust_domain,
                seal=seal,
                upstream=self._upstream,
                connection=self._connection,
                attestor=node_attestor(self._config),
                clock=self._clock,
                random=random.random,
            )
        )

    def _make_keeper(self, seal: Seal) -> Keeper:
        interval = self._config.sync_interval
        parts = KeeperParts(
            node=self._node,
            upstream=self._upstream,
            connection=self._connection,
            seal=seal,
            snapshots=self.snapshots,
            jwt_svids=self._jwt_svids,
            signer=Signer(self._upstream, self._clock, random.random, interval),
            status=self._status,
            clock=self._clock,
            random=random.random,
        )
        return Keeper(parts, Terms(operators_bundle(self._config), interval, self._version))

    def scene(self) -> Scene:
        """Everything there is to see at this moment."""
        return Scene(
            snapshot=self.snapshots.current,
            status=self._status,
            node=self._node.svid,
            node_renewal=self._node.renewal,
            jwt_svids=len(self._jwt_svids),
            streams=len(self._streams),
            ca_address=self._config.ca_address,
            version=self._version,
        )

    def addresses(self) -> dict[str, object]:
        """What a starter wants to know."""
        return {
            "spiffe_endpoint_socket": f"unix:{self._config.workload_socket}",
            "agent_socket": f"unix:{self._config.admin_socket}",
        }

    async def open(self, stack: AsyncExitStack) -> None:
        """Open both sockets; what was opened closes with the stack, the last first."""
        stack.push_async_callback(self._connection.close)
        stack.push_async_callback(self._jwt_svids.close)
        stack.callback(self._unix.close)
        for socket in (self._config.workload_socket, self._config.admin_socket):
            passable_directory(socket.parent)
        door, admin = self._workload_door(), self._admin_server()
        await door.start()
        stack.push_async_callback(door.stop, STOP_GRACE)
        await admin.start()
        stack.push_async_callback(admin.stop)

    def _workload_door(self) -> FrontDoor:
        limits = self._config.limits
        api = WorkloadApi(
            DoorParts(
                snapshots=self.snapshots,
                jwt_svids=self._jwt_svids,
                attestation=WorkloadAttestation((self._unix,)),
                streams=self._streams,
                requests=Places("requests", MAX_REQUESTS, MAX_REQUESTS_PER_USER),
                clock=self._clock,
                audit=self._audit,
                strangers=self._config.allow_unauthenticated_verifiers,
                write_timeout=limits.write_timeout,
            )
        )
        return FrontDoor(
            UnixListen(self._config.workload_socket, self._config.workload_socket_mode),
            services=(api.add_to, Health(self.snapshots, self._streams).add_to),
            run_dir=self._config.state_dir / "run",
            clock=self._clock,
            audit=self._audit,
            metrics=self._metrics,
            limits=DoorLimits(
                connections=limits.max_connections,
                per_uid=limits.max_connections_per_user,
                message_size=MAX_REQUEST,
            ),
        )

    def _admin_server(self) -> HttpServer:
        return HttpServer(
            AdminDoor(self.scene, self._metrics, self._clock),
            UnixListen(self._config.admin_socket, 0o600, admits=_is_ours),
            clock=self._clock,
            audit=self._audit,
            metrics=self._metrics,
            options=HttpOptions(limits=DoorLimits(connections=64, per_uid=48), log_requests=False),
        )


def _is_ours(uid: int) -> bool:
    return uid in (0, os.geteuid())


def node_attestor(config: AgentConfig) -> NodeAttestor:
    """The node attestation that was chosen."""
    if config.x509pop is not None:
        chosen = config.x509pop
        return X509PopAttestor(chosen.certificate_path, chosen.private_key_path, chosen.intermediates_path)
    assert config.join_token is not None  # the model saw to it
    value = config.join_token.value
    return JoinTokenAttestor(value.get_secret_value() if value else "", config.join_token.path)


def operators_bundle(config: AgentConfig) -> TrustBundle | None:
    """The authorities in the operator's file; None only for an insecure bootstrap."""
    if config.trust_bundle_path is None:
        return None
    trust_domain = TrustDomain.parse(config.trust_domain)
    return read_bundle_file(config.trust_bundle_path, config.trust_bundle_format, trust_domain)
