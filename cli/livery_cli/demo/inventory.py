"""`inventory`, a demo service: what is in stock, for callers that policy admits.

Owns: a small HTTP application and nothing of security: who calls is proved by mTLS (`livery.runtime.http`), whether the
call may be made is decided by the middleware (`livery_policy.enforce.asgi`) before this code sees it.
"""

from __future__ import annotations

from livery_cli.demo.web import Receive, Scope, Send, reply

_FIRST_STOCK = {"apple": 40, "pear": 25, "quince": 3}


class Inventory:
    """An ASGI application: GET /stock, GET /stock/{item}, DELETE /stock/{item}."""

    def __init__(self) -> None:
        self._stock = dict(_FIRST_STOCK)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        method, parts = str(scope["method"]), str(scope["path"]).strip("/").split("/")
        match (method, parts):
            case ("GET", ["stock"]):
                await reply(send, 200, dict(self._stock))
            case ("GET", ["stock", item]) if item in self._stock:
                await reply(send, 200, {"item": item, "count": self._stock[item]})
            case ("DELETE", ["stock", item]) if item in self._stock:
                del self._stock[item]
                await reply(send, 200, {"deleted": item})
            case _:
                await reply(send, 404, {"error": "no such thing in stock"})
