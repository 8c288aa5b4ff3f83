"""What the policy tests speak of: a small mesh, its calls, and a way to compile text in one line."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime

from livery_policy import cedar
from livery_policy.engine.cache import DecisionCache
from livery_policy.engine.compiling import CompiledSet, compile_policies
from livery_policy.engine.decide import Engine
from livery_policy.engine.source import PolicyFile
from livery_policy.model.calls import Call, HttpMessage, Peer, http_call
from livery_policy.model.vocabulary import Vocabulary

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORDERS = "spiffe://demo.test/orders"
INVENTORY = "spiffe://demo.test/inventory"
EVIL = "spiffe://evil.test/orders"
VOCABULARY = Vocabulary(headers=("x-tenant", "x-role"), claims=("groups",))

PERMIT_GET = 'permit(principal, action == Livery::Action::"http:GET", resource)'
READ_ITEMS = """
@id("orders-may-read")
permit (
  principal == Livery::Workload::"spiffe://demo.test/orders",
  action in Livery::Action::"http:read",
  resource == Livery::Service::"spiffe://demo.test/inventory"
)
when { context.http.path like "/items/*" };
"""


def compiled(*texts: str, vocabulary: Vocabulary = VOCABULARY) -> CompiledSet:
    """The compiled set of these texts, as files p0.cedar, p1.cedar, …"""
    files = [PolicyFile(f"p{n}", f"p{n}.cedar", textwrap.dedent(text)) for n, text in enumerate(texts)]
    return compile_policies(files, vocabulary)


def engine(*texts: str, cache: DecisionCache | None = None, evaluator: cedar.Evaluator = cedar.ask) -> Engine:
    """An engine over these texts."""
    return Engine(compiled(*texts), VOCABULARY, cache=cache, evaluator=evaluator)


def get(
    path: str = "/items/1", *, principal: str = ORDERS, resource: str = INVENTORY, method: str = "GET", **headers: str
) -> Call:
    """An HTTP call of the mesh; headers as `x_tenant="a"`."""
    lines = {name.replace("_", "-"): [value] for name, value in headers.items()}
    message = HttpMessage(method, path, "inventory.demo.test", 8443, None, lines)
    return http_call(principal, resource, message, Peer(verified=True, ip="192.0.2.7"))
