"""The order of things in `livery up`: what starts after what, what is watched, what is restarted, and how it all ends.

Owns: the sequence CA → entries → agent → policy → demo services, and turning what they say into events. Does not own:
a process's life (`process`), configurations (`roles`), entries (`entries`), or looks (`screen`).
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from livery.runtime.clock import Clock
from livery_cli.up.board import Board, Call
from livery_cli.up.entries import Registrar
from livery_cli.up.events import Event
from livery_cli.up.layout import Layout
from livery_cli.up.logs import shorten
from livery_cli.up.observer import Observer
from livery_cli.up.process import Process, Watcher
from livery_cli.up.report import Report
from livery_cli.up.roles import Roles
from livery_cli.up.screen import Screen
from livery_cli.up.settings import Settings

_TICK = 0.25  # seconds between redraws
_RECALLED = frozenset({"rotated", "degraded", "recovered"})  # what the live screen still shows a while later


@dataclass(frozen=True, slots=True)
class Parts:
    """What the supervisor works with; `command` builds them."""

    layout: Layout
    roles: Roles
    registrar: Registrar
    observer: Observer
    board: Board
    screen: Screen
    clock: Clock


class Supervisor:
    """Runs everything until it is told to stop."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._processes: dict[str, Process] = {}
        self._ready: dict[str, Mapping[str, object]] = {}
        self._early: list[Event] | None = []  # what happened before `ready`, which is said first
        self._unsaid: OSError | None = None

    async def run(self, stop: asyncio.Event) -> bool | None:
        """Start everything, watch it until `stop` or `--for`, and stop it.

        True if nothing failed, None if it was stopped before all was there. Raises OSError when nobody takes what it
        says any more.
        """
        started = False
        try:
            started = await self._started_unless(stop)
            if started:
                self._say_ready()
                await self._watch(stop)
        finally:
            self._progress("stopping")
            await self._stop_all()
            if started:
                self._say("stopped", self._parts.board.summary())
            self._parts.screen.close()
        if self._unsaid is not None:
            raise self._unsaid
        return not self._parts.board.outcomes["failed"] if started else None

    # Starting

    async def _started_unless(self, stop: asyncio.Event) -> bool:
        """Start everything; false if it was told to stop before all was there."""
        starting = asyncio.ensure_future(self._start_all())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (starting, stopping):
            if not task.done():
                task.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        try:
            await starting
        except asyncio.CancelledError:
            return False
        return True

    async def _start_all(self) -> None:
        roles, registrar = self._parts.roles, self._parts.registrar
        # 1. The CA, since everything else has its identity from it.
        ca = await self._start("ca")
        roles.ca_address = str(ca["address"])
        # 2. What the agent needs to trust it, and who may have which identity.
        roles.write_bundle(await registrar.bundle())
        await registrar.register(roles.entries())
        # 3. The agent, then those who have their identity from it.
        await self._start("agent")
        both = [self._start_policy(), *([self._start_inventory()] if self._settings.demo else [])]
        for outcome in await asyncio.gather(*both, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        # 4. Orders last: it begins to call at once.
        if self._settings.demo:
            orders = await self._start("orders")
            roles.orders_url = str(orders["url"])

    async def _start_policy(self) -> None:
        policy = await self._start("policy")
        self._parts.roles.policy_address = str(policy["address"])

    async def _start_inventory(self) -> None:
        inventory = await self._start("inventory")
        self._parts.roles.inventory_url = str(inventory["url"])

    async def _start(self, name: str) -> Mapping[str, object]:
        watcher = Watcher(died=self._died, back=self._back)
        report = Report(self._took_call) if name in ("orders", "inventory") else None
        command = self._parts.roles.command(name, report.line if report else None)
        process = Process(command, watcher, self._parts.clock)
        self._progress(f"starting {name}")
        self._processes[name] = process
        self._ready[name] = await process.start()
        return self._ready[name]

    def _ready_fields(self) -> dict[str, object]:
        layout, domain = self._parts.layout, self._settings.trust_domain
        services = {
            name: {"id": f"spiffe://{domain}/{name}", "url": self._ready[name]["url"]}
            for name in ("orders", "inventory")
            if name in self._ready
        }
        return {
            "pids": {"up": os.getpid()} | {name: process.pid for name, process in self._processes.items()},
            "trust_domain": domain,
            "ca_address": self._ready["ca"]["address"],
            "ca_socket": f"unix:{layout.ca_socket}",
            "spiffe_endpoint_socket": f"unix:{layout.workload_socket}",
            "agent_socket": f"unix:{layout.agent_socket}",
            "policy_socket": f"unix:{layout.policy_socket}",
            "policy_address": self._ready["policy"]["address"],
            "services": services,
            "state": str(layout.state),
        }

    # Watching

    async def _watch(self, stop: asyncio.Event) -> None:
        clock = self._parts.clock
        run_for = self._settings.run_for
        end = clock.monotonic() + run_for.total_seconds() if run_for else math.inf
        observer = asyncio.create_task(self._observe())
        try:
            while not stop.is_set() and clock.monotonic() < end and self._unsaid is None:
                self._parts.screen.tick(clock.now())
                try:
                    await asyncio.wait_for(stop.wait(), _TICK)
                except TimeoutError:
                    continue
        finally:
            observer.cancel()
            await asyncio.gather(observer, return_exceptions=True)

    async def _observe(self) -> None:
        """Hold the board against what the agent says, once a second, and keep the logs short."""
        board = self._parts.board
        while True:
            for name, identity in (await self._parts.observer.identities()).items():
                if board.hold(name, identity):
                    fields = {"service": name, "spiffe_id": identity.spiffe_id, "serial": identity.serial}
                    self._say("rotated", fields | {"expires_at": identity.expires_at.isoformat()})
            for name in self._processes:
                await asyncio.to_thread(shorten, self._parts.layout.log(name))
            await self._parts.clock.sleep(1.0)

    def _took_call(self, call: Call) -> None:
        board = self._parts.board
        board.count(call)
        fields = {
            "from": call.source,
            "to": call.target,
            "method": call.method,
            "path": call.path,
            "outcome": call.outcome,
            "reason": call.reason,
            "decision_id": call.decision_id,
            "ms": round(call.milliseconds, 2),
        }
        self._say("call", fields)
        if call.outcome == "denied" and not board.denied_because:
            board.denied_because = "…"
            self._explaining = asyncio.get_running_loop().create_task(self._explain(call.decision_id))

    async def _explain(self, decision_id: str) -> None:
        """The full reason of the first denial, which only an administrator of the policy server may see."""
        reason = await self._parts.observer.reason(decision_id)
        self._parts.board.denied_because = reason
        self._say("explained", {"decision_id": decision_id, "reason": reason})

    def _died(self, name: str, why: str) -> None:
        self._parts.board.troubles[name] = why
        self._say("degraded", {"what": name, "why": why})

    def _back(self, name: str, ready: Mapping[str, object]) -> None:
        self._ready[name] = ready
        self._parts.board.restarts[name] += 1
        self._parts.board.troubles.pop(name, None)
        self._say("recovered", {"what": name, "why": "restarted", "pid": self._processes[name].pid})

    def _say(self, name: str, fields: Mapping[str, object]) -> None:
        event = Event(name, self._parts.clock.now(), fields)
        if name in _RECALLED:
            self._parts.board.recent.append(event)
        if self._early is None:
            self._tell(lambda: self._parts.screen.show(event))
        else:
            self._early.append(event)

    def _say_ready(self) -> None:
        early, self._early = self._early or [], None
        self._say("ready", self._ready_fields())
        for event in early:
            self._tell(partial(self._parts.screen.show, event))

    def _progress(self, what: str) -> None:
        self._tell(lambda: self._parts.screen.progress(what))

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except OSError as error:  # whoever reads is gone, or there is no room: the run ends
            self._unsaid = error

    # Stopping

    async def _stop_all(self) -> None:
        """Callers before those they call, so that nobody sees a dead peer on the way down.

        Whoever stops us may have stopped them too (systemd signals a whole unit): none that ends meanwhile comes back.
        """
        for process in self._processes.values():
            process.expect_end()
        for process in reversed(self._processes.values()):
            await process.stop()
