"""The demo services as processes: who they are, where they listen, and what they are built from.

Owns: composition. `inventory` is uvicorn and our middleware, the whole of what an application adds to be authorized;
`orders` is a client whose every connection checks the server's SPIFFE ID before its first byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import click

from livery.identity import SpiffeId, TrustDomain
from livery.runtime.audit import AuditLog
from livery.runtime.clock import SystemClock
from livery.runtime.http import HttpServer, TcpListen
from livery.runtime.http.gate import Application
from livery.runtime.logging import configure
from livery.runtime.metrics import Metrics
from livery.workload import WorkloadSource
from livery.workload.http_client import client
from livery_cli.demo.inventory import Inventory
from livery_cli.demo.orders import Orders, Target
from livery_cli.role import OnReady, serve
from livery_cli.terminal.options import endpoint_socket_option, ready_fd_option
from livery_cli.up.report import report
from livery_policy.enforce.asgi import AuthorizationMiddleware
from livery_policy.enforce.decider import RemoteDecider

F = TypeVar("F", bound=Callable[..., object])


@click.group()
def demo() -> None:
    """The two services that `livery up` runs."""


@dataclass(frozen=True, slots=True)
class Service:
    """What both services are started with."""

    name: str
    trust_domain: TrustDomain
    endpoint: str
    port: int

    @property
    def id(self) -> SpiffeId:
        """Its SPIFFE ID."""
        return self.peer(self.name)

    def peer(self, name: str) -> SpiffeId:
        """The SPIFFE ID of another service of the demo."""
        return SpiffeId.of(self.trust_domain, f"/{name}")


def _service_options(command: F) -> F:
    command = click.option("--trust-domain", required=True, help="The demo's trust domain.")(command)
    command = click.option("--port", type=int, default=0, help="Where to listen; 0 takes a free one.")(command)
    command = click.option("--policy-socket", required=True, help="Who decides.")(command)
    return endpoint_socket_option(ready_fd_option(command))


@demo.command()
@_service_options
def inventory(trust_domain: str, endpoint_socket: str, port: int, policy_socket: str, ready_fd: int | None) -> int:
    """What is in stock, for callers that policy admits."""
    service = Service("inventory", TrustDomain.parse(trust_domain), endpoint_socket, port)

    async def run(on_ready: OnReady) -> None:
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(_source(service))
            decider = await stack.enter_async_context(RemoteDecider(policy_socket))
            app = AuthorizationMiddleware(Inventory(), decider, service.id)
            await _listen(service, source, app, stack, on_ready)
            await asyncio.Event().wait()  # until cancelled

    return serve(run, ready_fd)


@demo.command()
@_service_options
@click.option("--inventory-url", required=True, help="Where inventory listens.")
@click.option("--rate", type=float, required=True, help="Calls a second.")
def orders(
    trust_domain: str,
    endpoint_socket: str,
    port: int,
    policy_socket: str,
    inventory_url: str,
    rate: float,
    ready_fd: int | None,
) -> int:
    """Keeps asking inventory, and says how each call came out."""
    service = Service("orders", TrustDomain.parse(trust_domain), endpoint_socket, port)

    async def run(on_ready: OnReady) -> None:
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(_source(service))
            decider = await stack.enter_async_context(RemoteDecider(policy_socket))
            http = await stack.enter_async_context(client(source, service.peer("inventory")))
            calls = Orders(http, Target(inventory_url, rate), SystemClock(), report)
            app = AuthorizationMiddleware(calls, decider, service.id)
            await _listen(service, source, app, stack, on_ready)
            await calls.keep_calling()

    return serve(run, ready_fd)


def _source(service: Service) -> WorkloadSource:
    """The service's identity, always current."""
    return WorkloadSource(service.endpoint)


async def _listen(
    service: Service, source: WorkloadSource, app: Application, stack: contextlib.AsyncExitStack, on_ready: OnReady
) -> None:
    clock = SystemClock()
    audit = AuditLog(service.name, configure(service.name, clock=clock), clock)
    listen = TcpListen("localhost", service.port, source)
    server = HttpServer(app, listen, clock=clock, audit=audit, metrics=Metrics())
    await stack.enter_async_context(server)
    port = server.address.rpartition(":")[2]
    on_ready({"url": f"https://localhost:{port}", "id": str(service.id)})
