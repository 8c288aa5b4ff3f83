"""One stream of the Workload API, kept open for as long as we live.

Owns: reconnecting with back-off, and what a failure means for the state held (Workload Endpoint 6, Workload API 4).
Does not own: what the messages mean (`context`).

Invariants: the state is the last good message, whole. It is dropped when the server says that we are entitled to
nothing (PermissionDenied), and only then: a server that is away, or a message that cannot be read, leaves it as it is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable, Callable
from typing import Generic, TypeVar

import grpc
import grpc.aio

from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery.workload.errors import (
    MalformedResponse,
    NoIdentity,
    NotEntitled,
    RequestRefused,
    WorkloadApiUnavailable,
    WorkloadError,
)

FIRST_DELAY = 0.1
LAST_DELAY = 5.0
WELL_AFTER = 1.0  # a stream that lasted this long was well, and its end is the first failure of a new row

M = TypeVar("M")
T = TypeVar("T")

log = get_logger("livery.workload")


class Watch(Generic[M, T]):
    """The state that a stream of messages `M` describes, as a `T`."""

    def __init__(
        self,
        name: str,
        open_stream: Callable[[], AsyncIterable[M]],
        read: Callable[[M], T],
        clock: Clock,
        changed: Callable[[T | None], None] = lambda _: None,
    ) -> None:
        """`changed` is called with each new state, and with None when it is dropped."""
        self._name = name
        self._open_stream = open_stream
        self._read = read
        self._clock = clock
        self._changed = changed
        self._state: T | None = None
        self._problem: WorkloadError | None = None
        self._is_over = False
        self._news = asyncio.Event()

    def state(self) -> T:
        """The last good state; raises why there is none."""
        if self._state is None:
            raise self.problem or NoIdentity("the Workload API has not answered yet", fix="wait until it is ready")
        return self._state

    @property
    def problem(self) -> WorkloadError | None:
        """What is wrong with the stream now; None while it is well."""
        return self._problem

    async def ready(self, timeout: float) -> T:
        """The state, as soon as there is one. Raises the last problem after `timeout` seconds without."""
        try:
            async with asyncio.timeout(timeout):
                while self._state is None and not self._is_over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            if self._problem is None:
                fix = "is the agent running, and is there an entry for this process?"
                raise NoIdentity("no identity yet", why=f"no answer in {timeout:g} s", fix=fix) from None
        return self.state()

    async def run(self) -> None:
        """Follow the stream until cancelled, or until the server says that asking again is useless."""
        attempts = 0
        while not self._is_over:
            began = self._clock.monotonic()
            await self._follow()
            if self._clock.monotonic() - began >= WELL_AFTER:
                attempts = 0
            await self._clock.sleep(delay(attempts, secrets.randbelow(1000) / 1000))
            attempts += 1

    async def _follow(self) -> None:
        try:
            async for message in self._open_stream():
                self._take(message)
            self._fail(WorkloadApiUnavailable("the Workload API ended its stream"))
        except grpc.aio.AioRpcError as error:
            self._fail(problem_of(error))
        except Exception:
            # The boundary of this task: a bug must not silently end the following.
            log.exception("following the Workload API failed", stream=self._name)
            self._fail(WorkloadApiUnavailable("the Workload API cannot be followed", why="see the log"))

    def _take(self, message: M) -> None:
        try:
            state = self._read(message)
        except MalformedResponse as error:
            # Workload API 4.5: report, discard the message, keep the stream.
            self._problem = error
            log.warning("a message of the Workload API was discarded", stream=self._name, reason=str(error))
            self._news.set()
            return
        self._problem = None
        if state != self._state:
            self._set(state)

    def _fail(self, problem: WorkloadError) -> None:
        if type(problem) is not type(self._problem):
            log.warning("the Workload API failed", stream=self._name, reason=str(problem))
        self._problem = problem
        self._is_over = isinstance(problem, RequestRefused)
        if isinstance(problem, NotEntitled) and self._state is not None:
            self._set(None)  # Workload API 4.4: stop using everything it gave
        self._news.set()

    def _set(self, state: T | None) -> None:
        self._state = state
        self._news.set()
        self._changed(state)


def delay(attempts: int, chance: float) -> float:
    """Seconds before the next try: at once, then doubling from 0.1 to 5 s, each ± 25 % by `chance` (0 to 1)."""
    if attempts == 0:
        return 0.0
    return float(min(FIRST_DELAY * 2 ** min(attempts - 1, 16), LAST_DELAY) * (0.75 + chance / 2))


def problem_of(error: grpc.aio.AioRpcError) -> WorkloadError:
    """What a failed call means for us (Workload Endpoint 6)."""
    why = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.PERMISSION_DENIED:
            fix = "create an entry whose selectors fit this process"
            return NotEntitled("this process has no identity", why=why, fix=fix)
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.UNIMPLEMENTED:
            return RequestRefused("the Workload API refused the request", why=why)
        case _:
            return WorkloadApiUnavailable("the Workload API cannot be reached", why=why, fix="is the agent running?")
