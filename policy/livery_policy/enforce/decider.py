"""Who decides for an enforcement point: a server by AuthZEN, or policies in this process.

Owns: the `Decider` protocol, `RemoteDecider`, `LocalDecider`. Does not own: what is done with the answer (`asgi`).

Invariants: a decider answers, always: whatever goes wrong (nobody there, too slow, an answer that is none) is
`Reason.NO_DECISION`, which denies. Only a `decision` that is exactly true allows.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Protocol, Self

import httpx2
import msgspec

from livery_policy.decisions.point import DecisionPoint
from livery_policy.model.calls import Call
from livery_policy.model.decision import Decision, Reason

_MAX_ANSWER = 64 * 1024
_MAX_ID = 128


class Decider(Protocol):
    """Whoever says whether a call may be made."""

    async def decide(self, call: Call) -> Decision:
        """Decide. Never raises but for cancellation."""
        ...


class LocalDecider:
    """Policies in this process: no hop, and reasons in full. `asked_by` names the enforcement point in the log."""

    def __init__(self, point: DecisionPoint, asked_by: str = "local") -> None:
        self._point = point
        self._asked_by = asked_by

    async def decide(self, call: Call) -> Decision:
        """Decide here and now."""
        return self._point.decide(call, self._asked_by)


class RemoteDecider:
    """A decision point by AuthZEN.

    `RemoteDecider("unix:/run/livery/policy/api.sock")` asks over a unix socket, where it is known by its UID. With
    `client`, `address` is an https URL and the client must check the server's identity and show ours
    (`livery.workload.client`). Use it as an async context manager, or call `close`.
    """

    def __init__(self, address: str, *, client: httpx2.AsyncClient | None = None, timeout: float = 1.0) -> None:
        """`timeout` is seconds for the whole question, connecting included."""
        self._owned = client is None
        if client is None:
            if not address.startswith("unix:"):
                raise ValueError("without a client of your own, the address must be unix:/path")
            path = address.removeprefix("unix:").removeprefix("//")
            client = httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=path), timeout=timeout, trust_env=False)
            address = "http://policy"
        self._client = client
        self._url = f"{address.rstrip('/')}/access/v1/evaluation"
        self._timeout = timeout

    async def decide(self, call: Call) -> Decision:
        """Ask. What `peer` says of the caller stays here: the server makes its own of who asks."""
        try:
            question = msgspec.json.encode(_question(call))
            async with asyncio.timeout(self._timeout):
                response = await self._post(question)
        except TimeoutError:
            return _nobody(f"no answer within {self._timeout:g} s")
        except Exception as e:  # noqa: BLE001 - whatever keeps us from an answer, the answer is no
            return _nobody(f"the decision point could not be asked: {type(e).__name__}")
        return _read(response)

    async def _post(self, question: bytes) -> httpx2.Response:
        headers = {"content-type": "application/json"}
        try:
            return await self._client.post(self._url, content=question, headers=headers)
        except httpx2.TransportError as e:
            if isinstance(e, httpx2.TimeoutException):
                raise
            # A kept connection that the server closed in the same moment. Asking twice changes nothing.
            return await self._client.post(self._url, content=question, headers=headers)

    async def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._owned:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _question(call: Call) -> dict[str, object]:
    return {
        "subject": {"type": "spiffe", "id": call.principal},
        "action": {"name": call.action},
        "resource": {"type": "service", "id": call.resource},
        "context": call.context,
    }


def _read(response: httpx2.Response) -> Decision:
    if response.status_code != httpx2.codes.OK:
        return _nobody(f"the decision point answered {response.status_code}")
    try:
        document = json.loads(response.content) if len(response.content) <= _MAX_ANSWER else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("decision"), bool):
        return _nobody("the decision point's answer is no decision")
    context = document.get("context")
    said = context if isinstance(context, dict) else {}
    name = said.get("id")
    decision_id = name[:_MAX_ID] if isinstance(name, str) and name.isascii() and name.isprintable() else ""
    return Decision(decision_id, _reason(document["decision"] is True, said.get("reason")))


def _reason(allowed: bool, said: object) -> Reason:
    """The class of the reason, as far as it fits the decision: the decision decides, not its explanation."""
    if allowed:
        return Reason.PERMITTED
    try:
        reason = Reason(str(said))
    except ValueError:
        return Reason.NOT_PERMITTED
    return Reason.NOT_PERMITTED if reason is Reason.PERMITTED else reason


def _nobody(detail: str) -> Decision:
    return Decision("", Reason.NO_DECISION, detail=detail)
