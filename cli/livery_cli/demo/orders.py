"""`orders`, a demo service: keeps asking `inventory`, over mTLS, and reports how each call came out.

Owns: the pace of the calls and the words for their outcome. Two kinds of call: reading stock, which policy allows, and
deleting it, which policy denies; a call that comes out otherwise has failed. Does not own: identity or TLS
(`livery.workload`): the server's SPIFFE ID is verified before the first byte of a request leaves this process.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

from livery.errors import LiveryError
from livery.runtime.clock import Clock
from livery_cli.demo.web import Receive, Scope, Send, reply
from livery_cli.up.board import Call

_ITEMS = ("apple", "pear", "quince")
_AT_ONCE = 32  # calls in flight; what does not fit is late, not lost


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call, and how often."""

    url: str
    rate: float  # calls a second


class Orders:
    """Calls inventory at a steady rate, and answers GET /orders with its latest calls."""

    def __init__(
        self, client: httpx2.AsyncClient, target: Target, clock: Clock, report: Callable[[Call], None]
    ) -> None:
        self._client = client
        self._target = target
        self._clock = clock
        self._report = report
        self._latest: deque[Call] = deque(maxlen=20)
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if (scope["method"], scope["path"]) == ("GET", "/orders"):
            await reply(send, 200, [f"{call.method} {call.path}: {call.outcome}" for call in self._latest])
        else:
            await reply(send, 404, {"error": "no such thing here"})

    async def keep_calling(self) -> None:
        """Make calls until cancelled: one in every second deletes, the others read."""
        per_denied = max(round(self._target.rate), 2)
        due = self._clock.monotonic()
        async with asyncio.TaskGroup() as calls:
            for number in itertools.count(1):
                due += 1 / self._target.rate
                await self._clock.sleep(max(due - self._clock.monotonic(), 0))
                await self._places.acquire()
                method = "DELETE" if number % per_denied == 0 else "GET"
                calls.create_task(self._call(method, f"/stock/{_ITEMS[number % len(_ITEMS)]}"))

    async def _call(self, method: str, path: str) -> None:
        began = self._clock.monotonic()
        try:
            response = await self._client.request(method, self._target.url + path)
            outcome, reason, decision = _outcome(method, response)
        except (httpx2.HTTPError, LiveryError, OSError) as error:
            outcome, reason, decision = "failed", f"{type(error).__name__}: {error}", ""
        finally:
            self._places.release()
        took = (self._clock.monotonic() - began) * 1000
        call = Call("orders", "inventory", method, path, outcome, reason, decision, took)
        self._latest.append(call)
        self._report(call)


def _outcome(method: str, response: httpx2.Response) -> tuple[str, str, str]:
    """Outcome, reason and decision id: reading must be allowed, deleting must be denied."""
    if response.status_code == 200 and method == "GET":
        return "allowed", "", ""
    if response.status_code == 403 and method == "DELETE":
        said = response.json()
        return "denied", str(said.get("reason", "")), str(said.get("id", ""))
    return "failed", f"{method} answered {response.status_code}: {response.text[:200]}", ""
