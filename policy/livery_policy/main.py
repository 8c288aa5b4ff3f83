"""The policy server: its parts put together, started, and stopped in order.

Owns: wiring and the order of start and stop. Does not own: configuration files, signals and exit codes (the command),
or any decision.

Order: policies first (a server without valid ones does not start), then the unix socket, then, if asked for, TLS with
the identity from the Workload API. `on_ready` comes last.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from livery.identity import SpiffeId
from livery.runtime.audit import Audit, AuditLog
from livery.runtime.clock import Clock
from livery.runtime.files import passable_directory
from livery.runtime.http import HttpBounds, HttpOptions, HttpServer, TcpListen, UnixListen
from livery.runtime.lifecycle import all_at_once
from livery.runtime.logging import Sink, configure
from livery.runtime.metrics import Metrics
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import Listen
from livery.workload import WorkloadSource
from livery_policy.bundles.keeper import PolicyDirectory, PolicyKeeper
from livery_policy.config import PolicyConfig
from livery_policy.decisions.log import DecisionLog
from livery_policy.decisions.point import DecisionPoint
from livery_policy.doors.admin import AdminParts, admin_app
from livery_policy.doors.admission import Admission
from livery_policy.doors.authzen import AuthzenDoor, AuthzenLimits, PolicyApplication

OnReady = Callable[[Mapping[str, object]], None]
_TICK = 1.0  # seconds between two looks at whether open connections still verify


async def run(config: PolicyConfig, clock: Clock, on_ready: OnReady) -> None:
    """Be a policy server until cancelled. `on_ready` is called once, with the addresses.

    Raises `InvalidPolicies` or `UnreadablePolicies` if the policies cannot be loaded, and a `WorkloadError` if TLS is
    asked for and there is no identity.
    """
    sink = configure("policy", config.log_level, json=config.log_format == "json", clock=clock)
    server = PolicyServer(config, clock, sink, AuditLog("policy", sink, clock))
    async with AsyncExitStack() as stack:
        await server.open(stack)
        on_ready(server.addresses())
        await server.keep()


class PolicyServer:
    """All parts of one policy server."""

    def __init__(self, config: PolicyConfig, clock: Clock, sink: Sink, audit: Audit) -> None:
        self._config = config
        self._clock = clock
        self._audit = audit
        self._metrics = Metrics()
        log = DecisionLog(sink, written=config.decision_log, kept=config.decisions_kept)
        self.point = DecisionPoint(clock, log, self._metrics, explained_per_second=config.explained_per_second)
        self.keeper = PolicyKeeper(
            PolicyDirectory(config.policy_dir, config.vocabulary(), config.reload_interval.total_seconds()),
            self.point,
            clock,
            self._metrics,
            cache_size=config.decision_cache_size,
        )
        self._ids = frozenset(SpiffeId.parse(text) for text in config.admit_ids)
        self._admission = Admission(config.admit_uids, self._ids)
        self._tls: HttpServer | None = None

    async def open(self, stack: AsyncExitStack) -> None:
        """Load the policies and open the doors; what was opened closes with the stack, the last first."""
        await self.keeper.load()
        # A compiled set is large and lives long: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        app = self._application()
        passable_directory(self._config.socket.parent)
        await stack.enter_async_context(self._server(app, UnixListen(self._config.socket, self._config.socket_mode)))
        if self._config.listen_port is None:
            return
        source = WorkloadSource(self._config.workload_endpoint, clock=self._clock)
        await source.start()
        stack.push_async_callback(source.close)
        await source.wait_ready(self._config.identity_timeout.total_seconds())
        listen = TcpListen(self._config.listen_host, self._config.listen_port, source, self._admits(source))
        self._tls = await stack.enter_async_context(self._server(app, listen))

    async def keep(self) -> None:
        """Watch the policies, and the peers of open connections, until cancelled."""
        await all_at_once((self.keeper.watch(), self._recheck()))

    def addresses(self) -> dict[str, object]:
        """What a starter wants to know."""
        found: dict[str, object] = {"socket": f"unix:{self._config.socket}"}
        if self._tls is not None:
            found["address"] = f"{self._config.listen_host}:{self._port()}"
        return found

    def _application(self) -> PolicyApplication:
        limits = AuthzenLimits(self._config.max_body, self._config.max_evaluations)
        authzen = AuthzenDoor(self.point, self._admission, self._clock, limits, self._base_url)
        parts = AdminParts(self.point, self.keeper, self._admission, self._clock, self._metrics, self._audit)
        return PolicyApplication(authzen, admin_app(parts))

    def _server(self, app: PolicyApplication, listen: Listen) -> HttpServer:
        # The decision log has the one line of a request.
        bounds = HttpBounds(body_bytes=self._config.max_body)
        options = HttpOptions(bounds=bounds, limits=DoorLimits(per_identity=512), log_requests=False)
        return HttpServer(app, listen, clock=self._clock, audit=self._audit, metrics=self._metrics, options=options)

    def _admits(self, source: WorkloadSource) -> Callable[[SpiffeId], str | None]:
        """Who may finish a handshake: our own trust domain (to be told 403 if not admitted), and who is admitted."""

        def admits(peer: SpiffeId) -> str | None:
            own = source.svid().id.trust_domain
            return None if peer.member_of(own) or peer in self._ids else f"{peer} is not in admit_ids"

        return admits

    def _base_url(self) -> str | None:
        if self._config.public_url is not None or self._tls is None:
            return self._config.public_url
        return f"https://localhost:{self._port()}"

    def _port(self) -> str:
        return self._tls.address.rpartition(":")[2] if self._tls is not None else ""

    async def _recheck(self) -> None:
        while True:
            await self._clock.sleep(_TICK)
            if self._tls is not None:
                await self._tls.recheck()
