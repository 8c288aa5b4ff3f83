"""An identity that is always current: what an application asks whenever it needs its SVID.

    async with WorkloadSource() as source:
        source.svid(), source.bundles()

Owns: the connection to the Workload API, the newest `X509Context`, and telling subscribers of a change. Does not own:
TLS (`livery.workload.tls`) or HTTP (`livery.workload.http_client`).

Invariants: `svid` and `bundles` come from one message; each is the same object until it really changes, so identity
(`is`) says whether there is something to do. What was received is kept while the agent is away, and dropped when the
agent says that we are entitled to nothing. A `WorkloadSource` is a `DoorIdentity`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
import grpc.aio

from livery.identity import BundleMap, JwtSvid, SpiffeId, VerifiedJwtSvid, X509Svid, verify_jwt
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.logging import get_logger
from livery.wire import workload_api
from livery.workload.context import X509Context, read_jwt_bundles, read_jwt_svids, read_x509
from livery.workload.endpoint import find_endpoint, grpc_target
from livery.workload.errors import NotEntitled, WorkloadError
from livery.workload.watch import Watch, problem_of

# Workload Endpoint 3: without it the server must refuse.
_METADATA: Final = (("workload.spiffe.io", "true"),)
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Shorter than ours (`watch.LAST_DELAY`), so that a try of ours is a try of grpc's.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
READY_TIMEOUT: Final = 30.0
CALL_TIMEOUT: Final = 10.0

R = TypeVar("R")
Unsubscribe = Callable[[], None]

log = get_logger("livery.workload")


class WorkloadSource:
    """Our identity, from the Workload API at `endpoint` (default: the environment's `SPIFFE_ENDPOINT_SOCKET`).

    With a `hint`, the identity so named; otherwise the default one. Raises `InvalidEndpoint`.
    """

    def __init__(self, endpoint: str | None = None, *, hint: str | None = None, clock: Clock | None = None) -> None:
        self._target = grpc_target(find_endpoint(endpoint))
        self._hint = hint
        self._clock = clock or SystemClock()
        self._channel: grpc.aio.Channel | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._subscribers: list[Callable[[X509Context | None], None]] = []
        self._x509 = Watch("FetchX509SVID", self._open_x509, read_x509, self._clock, self._tell)
        self._jwt = Watch("FetchJWTBundles", self._open_jwt_bundles, read_jwt_bundles, self._clock)
        self._now: X509Context | None = None
        self._follows_jwt = False

    async def start(self) -> None:
        """Begin to follow the Workload API; returns at once (see `wait_ready`)."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS)
            self._tasks.append(asyncio.create_task(self._x509.run(), name="livery-workload-x509"))

    async def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Return once there is an identity. Raises why there is none after `timeout` seconds (a `WorkloadError`)."""
        await self._x509.ready(timeout)
        self.svid()

    async def close(self) -> None:
        """Stop following; `svid` and `bundles` keep answering what they last did."""
        tasks, self._tasks = self._tasks, []
        self._follows_jwt = False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await self.wait_ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def context(self) -> X509Context:
        """SVIDs and bundles of one message. Raises `NoIdentity`, `NotEntitled` or `WorkloadApiUnavailable`."""
        if self._now is None:
            return self._x509.state()
        return self._now

    def svid(self) -> X509Svid:
        """Our X509-SVID, with its key. Raises as `context` does."""
        found = self.context().svid(self._hint)
        if found is None:
            raise NotEntitled("this process has no identity of that name", why=f"no SVID has the hint {self._hint!r}")
        return found

    def bundles(self) -> BundleMap:
        """The bundles of our trust domain and of those it federates with. Raises as `context` does."""
        return self.context().bundles

    @property
    def problem(self) -> WorkloadError | None:
        """What is wrong between us and the agent at this moment; an identity may be held all the same."""
        return self._x509.problem

    def on_update(self, callback: Callable[[X509Context | None], None]) -> Unsubscribe:
        """Call back with each new state, and with None when the agent takes our identity away.

        Called on the event loop; what it raises is logged and forgotten. Returns how to stop it.
        """
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    async def fetch_jwt(self, audience: str | Sequence[str], spiffe_id: SpiffeId | None = None) -> JwtSvid:
        """A JWT-SVID for `audience`, of our default identity or of `spiffe_id`. Raises a `WorkloadError`."""
        names = [audience] if isinstance(audience, str) else list(audience)
        request = workload_api.JWTSVIDRequest(audience=names, spiffe_id=str(spiffe_id) if spiffe_id else "")
        call = self._stub().FetchJWTSVID(request, metadata=_METADATA, timeout=CALL_TIMEOUT)
        return read_jwt_svids(await _answer(call))[0]

    async def validate_jwt(self, token: str, audience: str) -> VerifiedJwtSvid:
        """Verify a token that somebody sent us, made for `audience`; raises an `IdentityError` if it is not good.

        The first call begins to follow the JWT bundles; verification itself asks nobody.
        """
        if not self._follows_jwt:
            self._stub()
            self._follows_jwt = True
            self._tasks.append(asyncio.create_task(self._jwt.run(), name="livery-workload-jwt"))
        bundles = await self._jwt.ready(CALL_TIMEOUT)
        return verify_jwt(token, bundles, audience, self._clock.now())

    def _stub(self) -> workload_api.SpiffeWorkloadAPIAsyncStub:
        if self._channel is None:
            raise WorkloadError("the source is not started", fix="use it in `async with`, or call start()")
        return workload_api.SpiffeWorkloadAPIStub(self._channel)

    def _open_x509(self) -> AsyncIterable[workload_api.X509SVIDResponse]:
        return self._stub().FetchX509SVID(workload_api.X509SVIDRequest(), metadata=_METADATA)

    def _open_jwt_bundles(self) -> AsyncIterable[workload_api.JWTBundlesResponse]:
        return self._stub().FetchJWTBundles(workload_api.JWTBundlesRequest(), metadata=_METADATA)

    def _tell(self, state: X509Context | None) -> None:
        self._now = _settled(self._now, state)
        for callback in list(self._subscribers):
            try:
                callback(self._now)
            except Exception:
                log.exception("a subscriber of the workload identity failed")


def _settled(before: X509Context | None, now: X509Context | None) -> X509Context | None:
    """The new state, with those objects of the old one that have not changed."""
    if before is None or now is None:
        return now
    svids = tuple(next((old for old in before.svids if old == svid), svid) for svid in now.svids)
    return X509Context(svids, before.bundles if before.bundles == now.bundles else now.bundles)


async def _answer(call: Awaitable[R]) -> R:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise problem_of(error) from error
