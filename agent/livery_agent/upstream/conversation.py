"""A call in which both sides speak in turns, and which ends as the peer ended it.

Owns: telling the peer's own status where gRPC loses it. A peer may end a call while we write to it. Then gRPC's asyncio
API fails the write and puts `INTERNAL: Internal error from Core` in the place of the status that the peer sent, whether
that has arrived already or comes after. And a write that waits for a connection waits for ever, whatever the call's
time-out, if the call is cancelled or its channel closed meanwhile. Does not own: what is said and heard (`joining`,
`sync`), or our names for a status (`refusals`).

Invariants: `say` never tells how the call ended; the next `hear` does, in the peer's words. Neither outlasts the call.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

import grpc.aio

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# For how long a status that is on its way is waited for: it is in this process already. Seconds.
_PATIENCE = 1.0
_LOOK_AGAIN = 0.01
_LOST = "Internal error from Core"


class Conversation(Generic[Question, Answer]):
    """Write with `say`, read with `hear`."""

    def __init__(self, call: grpc.aio.StreamStreamCall[Question, Answer]) -> None:
        self._call = call
        self._end: grpc.aio.AioRpcError | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call.add_done_callback(self._ended)

    async def say(self, question: Question) -> None:
        """Send one message; if the peer has ended the call, nothing: how it ended is heard next."""
        writing = asyncio.ensure_future(self._call.write(question))
        try:
            await asyncio.wait({writing, self._over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writing.cancel()
        await asyncio.wait({writing})
        error = None if writing.cancelled() else writing.exception()
        if error is not None and not isinstance(error, asyncio.InvalidStateError | grpc.aio.AioRpcError):
            raise error

    async def hear(self) -> Answer | None:
        """The next message; None after the last of a call that ended well; otherwise raises how it ended."""
        try:
            heard = await self._call.read()
        except grpc.aio.AioRpcError as error:
            end = await self._true_end(error)
            if end.code() is grpc.StatusCode.OK:
                return None
            raise end from None
        return None if heard is grpc.aio.EOF else cast("Answer", heard)

    async def finish_saying(self) -> None:
        """Nothing more will be said; of a call that the peer has ended nothing is left to finish."""
        with suppress(grpc.aio.InternalError):
            await self._call.done_writing()

    def _ended(self, call: Any) -> None:
        # The first status there is. It is taken here and now: a failing write may replace it in the loop's next step.
        reading = _end_of(call)
        try:
            reading.send(None)
        except StopIteration as done:
            self._end = done.value
        finally:
            reading.close()
        if not self._over.done():
            self._over.set_result(None)

    async def _true_end(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        end = self._end or error
        patience = _PATIENCE
        while _is_lost(end) and patience > 0:
            await asyncio.sleep(_LOOK_AGAIN)
            patience -= _LOOK_AGAIN
            end = await _end_of(self._call)
        return end


async def _end_of(call: Any) -> grpc.aio.AioRpcError:
    """The status of a call that has ended; does not wait."""
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
        await call.debug_error_string(),
    )


def _is_lost(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _LOST
