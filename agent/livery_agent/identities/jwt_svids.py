"""JWT-SVIDs on demand: asked of the CA, kept until half of their life is over, served longer if the CA is away.

Owns: the cache, and that callers who want the same token at the same time share one request. Does not own: who may have
which token (`doors`).

Invariants: a token is served only for the identity, entry edition and audience it was made for, and only while it is
valid at this node's own time. The cache is bounded, in number and in the size of what it keeps; the token least
recently used goes first. A request that nobody waits for any more is given up: who asks and leaves, again and again,
leaves nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from livery.errors import LiveryError
from livery.identity import JwtSvid, SpiffeId, TrustBundle
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery_agent.errors import CaAnswerUnusable, CaUnavailable, NotInForce
from livery_agent.identities.entry import Entry
from livery_agent.schedule import Renewal, draw_jitter
from livery_agent.turns import Turns

log = get_logger(__name__)

# With a usable token at hand, a slow CA is not waited for longer than this.
PATIENCE = timedelta(seconds=5)
MAX_REQUESTS = 32  # under way at the CA at one time
MAX_REQUESTS_PER_ENTRY = 8
MAX_KEPT = 16 * 1024  # bytes: a longer token (of thousands of audiences) is served and not kept

# An edition may come back for another identity: deleted and created within a second, or restored from a backup.
Key = tuple[SpiffeId, tuple[str, int, int], tuple[str, ...]]


class JwtSource(Protocol):
    """Where new tokens come from: the CA."""

    async def jwt_svid(self, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """A new token for the entry's identity and this audience."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    svid: JwtSvid
    renewal: Renewal


@dataclass(slots=True)
class _Request:
    """One request to the CA, and how many wait for it."""

    task: asyncio.Task[JwtSvid]
    waiting: int = 0


class JwtSvids:
    """The tokens of this node's workloads."""

    def __init__(self, source: JwtSource, size: int, clock: Clock, random: Callable[[], float]) -> None:
        self._source = source
        self._size = size
        self._clock = clock
        self._random = random
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._under_way: dict[Key, _Request] = {}
        self._turns = Turns(MAX_REQUESTS, MAX_REQUESTS_PER_ENTRY)

    def __len__(self) -> int:
        return len(self._held)

    async def get(self, entry: Entry, audience: Sequence[str]) -> JwtSvid:
        """A valid token for the entry's identity and this audience, from the cache or from the CA.

        Raises what the CA's refusal means if there is none at hand to serve instead.
        """
        key: Key = (entry.spiffe_id, entry.edition, tuple(sorted(set(audience))))
        held = self._held.get(key)
        now = self._clock.now()
        if held is None or held.renewal.is_over(now):
            return await self._fetched(key, entry)
        self._held.move_to_end(key)
        if not held.renewal.is_due(now):
            return held.svid
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                return await self._fetched(key, entry, renewing=True)
        except (LiveryError, TimeoutError) as error:
            # The new one may have come in the very turn in which our patience ended, or the old one been withdrawn.
            left = self._held.get(key)
            if left is None or left.renewal.is_over(self._clock.now()):
                why = (
                    str(error)
                    or f"the CA is slow, and the token at hand {'was withdrawn' if left is None else 'ended'}"
                )
                raise CaUnavailable("there is no new JWT-SVID", why=why) from error
            if left is held:
                why = str(error) or "the CA is slow"
                log.warning("serving a JWT-SVID past its half life", spiffe_id=str(entry.spiffe_id), error=why)
            return left.svid

    def forget(self, key_ids: frozenset[str]) -> None:
        """Drop every token signed by one of these keys."""
        for key in [key for key, held in self._held.items() if held.svid.key_id in key_ids]:
            del self._held[key]

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = [request.task for request in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetched(self, key: Key, entry: Entry, *, renewing: bool = False) -> JwtSvid:
        """The token of the one request for this key. A renewal goes on without its callers."""
        request = self._under_way.get(key)
        if request is None:
            request = _Request(asyncio.create_task(self._fetch(key, entry)), waiting=1 if renewing else 0)
            self._under_way[key] = request
            request.task.add_done_callback(lambda _: self._landed(key, request))
        request.waiting += 1
        try:
            # One caller that goes away must not take the token from the others.
            return await asyncio.shield(request.task)
        finally:
            request.waiting -= 1
            if not request.waiting and not request.task.done():
                del self._under_way[key]  # at once: who comes now must not wait for what is being given up
                request.task.cancel()

    def _landed(self, key: Key, request: _Request) -> None:
        if self._under_way.get(key) is request:
            del self._under_way[key]
        if not request.task.cancelled():
            request.task.exception()  # seen, even if every caller has left

    async def _fetch(self, key: Key, entry: Entry) -> JwtSvid:
        _, _, audience = key
        async with self._turns.turn(entry.id):
            svid = await self._source.jwt_svid(entry.id, audience)
        now = self._clock.now()
        _require_fit(svid, entry, audience)
        if svid.expires_at <= now:
            why = f"it ended {svid.expires_at.isoformat()}, it is {now.isoformat()} here"
            raise NotInForce("the CA's JWT-SVID has expired at this node's time", why=why, fix="compare the clocks")
        if len(svid.token) > MAX_KEPT:
            return svid
        self._held[key] = _Held(svid, Renewal(now, svid.expires_at, draw_jitter(self._random)))
        self._held.move_to_end(key)
        while len(self._held) > self._size:
            self._held.popitem(last=False)
        return svid


def _require_fit(svid: JwtSvid, entry: Entry, audience: Sequence[str]) -> None:
    if svid.id != entry.spiffe_id or set(svid.audience) != set(audience):
        raise CaAnswerUnusable(
            f"the CA's JWT-SVID for {entry.spiffe_id} cannot be used", why="it is not what was asked"
        )


def withdrawn_keys(before: TrustBundle | None, after: TrustBundle) -> frozenset[str]:
    """The JWT keys that the newer bundle taints or no longer holds. A key newer than both bundles is not among them."""
    tainted = {key.key_id for key in after.jwt_authorities if key.tainted}
    known = {key.key_id for key in before.jwt_authorities} if before else set()
    return frozenset(tainted | (known - {key.key_id for key in after.jwt_authorities}))
