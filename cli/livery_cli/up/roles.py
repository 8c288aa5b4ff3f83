"""How each process of `livery up` is configured and started.

Owns: the one `livery.toml` of this state (a table a role), the arguments of the demo services, and the demo's policy.
Does not own: what the settings mean (the roles' own models do). Ports are free ones at the first start and kept for
every restart after it, so that a role that comes back is found where it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta

from livery.identity import TrustBundle
from livery.runtime.files import write_atomic
from livery_cli.terminal.toml_text import toml
from livery_cli.up.entries import Registration
from livery_cli.up.layout import Layout
from livery_cli.up.node_identity import NodeIdentity
from livery_cli.up.persona import Persona
from livery_cli.up.process import Command
from livery_cli.up.settings import Settings

_COMMENT = "Written by `livery up` at each start: change its options, not this file."
_POLICY = """\
// The policy of the demo: orders may read inventory's stock. Nothing allows deleting it, so that is denied.
@id("orders-reads-stock")
permit (
  principal == Livery::Workload::"spiffe://{trust_domain}/orders",
  action in Livery::Action::"http:read",
  resource == Livery::Service::"spiffe://{trust_domain}/inventory"
) when {{ context.http.path like "/stock/*" }};
"""
SERVICES = ("policy", "inventory", "orders")


class Roles:
    """The processes of one `livery up`; what is learned on the way (addresses) is set as it becomes known."""

    def __init__(self, settings: Settings, layout: Layout, node: NodeIdentity, personas: dict[str, Persona]) -> None:
        self._settings = settings
        self._layout = layout
        self._node = node
        self._personas = personas
        self.ca_address = "localhost:0"
        self.policy_address = "localhost:0"
        self.inventory_url = "https://localhost:0"
        self.orders_url = "https://localhost:0"

    # Files

    def write_policy(self) -> None:
        """The demo's policy, unless this state has policies already."""
        if not self._layout.policies.exists():
            self._layout.policies.mkdir()
            text = _POLICY.format(trust_domain=self._settings.trust_domain)
            write_atomic(self._layout.policies / "demo.cedar", text.encode(), mode=0o644)

    def write_bundle(self, bundle: TrustBundle) -> None:
        """What the agent trusts at its first connection."""
        write_atomic(self._layout.state / "agent" / "bootstrap.pem", bundle.to_pem(), mode=0o644)

    def write_config(self) -> None:
        """The roles' configuration, with what is known of the addresses by now."""
        tables = {"ca": self._ca(), "agent": self._agent(), "policy": self._policy()}
        # It holds no secret, and roles of another UID read it.
        write_atomic(self._layout.config, toml(tables, _COMMENT).encode(), mode=0o644)

    def _ca(self) -> dict[str, object]:
        ttl = self._settings.svid_ttl
        return {
            "trust_domain": self._settings.trust_domain,
            "state_dir": self._layout.state / "ca",
            "listen_port": _port(self.ca_address),
            "admin_socket": self._layout.ca_socket,
            "default_x509_svid_ttl": _text(ttl),
            "x509pop": {"ca_bundle_paths": [self._node.authority]},
        }

    def _agent(self) -> dict[str, object]:
        return {
            "trust_domain": self._settings.trust_domain,
            "ca_address": self.ca_address if _port(self.ca_address) else "localhost:1",
            "trust_bundle_path": self._layout.state / "agent" / "bootstrap.pem",
            "state_dir": self._layout.state / "agent" / "state",
            "workload_socket": self._layout.workload_socket,
            "admin_socket": self._layout.agent_socket,
            "sync_interval": "1s",
            "x509pop": {"certificate_path": self._node.certificate, "private_key_path": self._node.key},
        }

    def _policy(self) -> dict[str, object]:
        return {
            "policy_dir": self._layout.policies,
            "socket": self._layout.policy_socket,
            "listen_port": _port(self.policy_address),
            "workload_endpoint": f"unix:{self._layout.workload_socket}",
            "admit_uids": sorted({os.geteuid(), self._personas["inventory"].uid}),
            "admit_ids": [f"spiffe://{self._settings.trust_domain}/{name}" for name in ("inventory", "orders")],
        }

    def hand_over(self) -> None:
        """Give the policy server's socket directory to its user."""
        uid = self._personas["policy"].uid
        if uid != os.geteuid():
            os.chown(self._layout.policy_socket.parent, uid, uid)

    # Identities

    def entries(self) -> list[Registration]:
        """Who gets which identity, through this machine's agent."""
        domain = self._settings.trust_domain
        parent = f"spiffe://{domain}/spire/agent/x509pop/{self._node.fingerprint()}"
        return [Registration(f"spiffe://{domain}/{name}", parent, self._personas[name].selectors) for name in SERVICES]

    # Processes

    def command(self, name: str, on_line: Callable[[str], None] | None) -> Command:
        """How a process is started."""
        arguments = {
            "ca": self._role("ca"),
            "agent": self._role("agent"),
            "policy": self._role("policy"),
            "inventory": self._inventory,
            "orders": self._orders,
        }[name]
        uid = self._personas[name].uid if name in self._personas else os.geteuid()
        return Command(name, arguments, self._layout.log(name), uid, on_line=on_line)

    def _role(self, name: str) -> Callable[[], list[str]]:
        interpreter = self._personas[name].interpreter if name in self._personas else sys.executable

        def arguments() -> list[str]:
            self.write_config()
            return [str(interpreter), "-m", "livery_cli", name, "run", "--config", str(self._layout.config)]

        return arguments

    def _inventory(self) -> list[str]:
        more = ["--policy-socket", f"unix:{self._layout.policy_socket}"]
        return [*self._demo("inventory", self.inventory_url), *more]

    def _orders(self) -> list[str]:
        more = ["--inventory-url", self.inventory_url, "--rate", str(self._settings.rate)]
        return [*self._demo("orders", self.orders_url), *more, "--policy-socket", f"unix:{self._layout.policy_socket}"]

    def _demo(self, name: str, url: str) -> list[str]:
        return [
            str(self._personas[name].interpreter),
            "-m",
            "livery_cli.demo",
            name,
            "--trust-domain",
            self._settings.trust_domain,
            "--endpoint-socket",
            f"unix:{self._layout.workload_socket}",
            "--port",
            str(_port(url)),
        ]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _text(duration: timedelta) -> str:
    return f"{int(duration.total_seconds() * 1000)}ms"
