"""How often one address may call which method: one table, and the bucket that makes callers wait their turn.

Owns: `LIMITED`, `LimitSettings`, the buckets. Does not own: bounds on connections and message sizes (the front door).

Invariants: a caller waits instead of being refused, unless it asks for more than a bucket ever holds or could not be
served before its own deadline; a caller on a unix socket never waits; the memory held is bounded. An address is what
the front door counts as one (IPv6: a /64). However many of them strangers have, who may only attest, agents are served.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from grpc.aio import ServicerContext

from livery.errors import Kind, LiveryError
from livery.runtime.caller import Caller, caller_of
from livery.runtime.clock import Clock
from livery.runtime.transport.limits import address_key
from livery_ca.doors.refusals import Exhausted

_AGENT = "/spire.api.server.agent.v1.Agent/"
_BUNDLE = "/spire.api.server.bundle.v1.Bundle/"
_SVID = "/spire.api.server.svid.v1.SVID/"

# Methods under one name share one bucket per address: certificates are signed for three of them.
LIMITED: Mapping[str, str] = MappingProxyType(
    {
        f"{_AGENT}AttestAgent": "attestation",
        f"{_AGENT}RenewAgent": "x509_signing",
        f"{_AGENT}PostStatus": "post_status",
        f"{_SVID}BatchNewX509SVID": "x509_signing",
        f"{_SVID}NewDownstreamX509CA": "x509_signing",
        f"{_SVID}NewJWTSVID": "jwt_signing",
        f"{_SVID}BatchNewWITSVID": "wit_signing",
        f"{_BUNDLE}PublishJWTAuthority": "key_publishing",
        f"{_BUNDLE}PublishWITAuthority": "key_publishing",
    }
)
"""The limited methods and the limit each falls under; methods that are not named are not limited."""

# The deadline of SPIRE's agents. A caller that sets none, or a longer one, does not get to queue for longer.
LONGEST_WAIT = 30.0
IDLE_SECONDS = 60.0
MAX_ADDRESSES = 65_536  # under each limit


class RateExceeded(LiveryError):
    """More was asked for than this address may have, now or ever; the text says which."""

    code: ClassVar[str] = "rate_exceeded"
    kind: ClassVar[Kind] = Kind.EXHAUSTED


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Calls per second and address, which is also the burst; None lifts a limit. SPIRE's numbers are the defaults."""

    attestation: int | None = 1
    x509_signing: int | None = 500
    jwt_signing: int | None = 500
    wit_signing: int | None = 500
    key_publishing: int | None = 500
    post_status: int | None = 10

    def rate(self, name: str) -> int | None:
        """The rate of the limit of this name."""
        rates: Mapping[str, int | None] = {
            "attestation": self.attestation,
            "x509_signing": self.x509_signing,
            "jwt_signing": self.jwt_signing,
            "wit_signing": self.wit_signing,
            "key_publishing": self.key_publishing,
            "post_status": self.post_status,
        }
        return rates[name]


class Bucket:
    """A token bucket whose level may go below zero: the debt is the queue, and each caller knows its place in it."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._level = float(rate)
        self._at = now

    def take(self, count: int, now: float, longest: float) -> float:
        """Take `count` and return the seconds to wait for them; raises when that is longer than `longest`."""
        self._refill(now)
        wait = max(0.0, (count - self._level) / self._rate)
        if wait > longest:
            raise RateExceeded(f"rate: Wait(n={count}) would exceed context deadline")
        self._level -= count
        return wait

    def give_back(self, count: int, now: float) -> None:
        """Undo a `take` whose caller went away before its turn."""
        self._refill(now)
        self._level = min(float(self._rate), self._level + count)

    def idle_since(self, now: float) -> float:
        """Seconds since the last use."""
        return now - self._at

    def _refill(self, now: float) -> None:
        self._level = min(float(self._rate), self._level + (now - self._at) * self._rate)
        self._at = now


class Limits:
    """The buckets of all limits and addresses."""

    def __init__(self, settings: LimitSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        # By limit and address; of a limit, the least recently used address first.
        self._buckets: dict[str, OrderedDict[str, Bucket]] = {name: OrderedDict() for name in LIMITED.values()}

    async def wait(self, method: str, caller: Caller, count: int = 1, deadline: float | None = None) -> None:
        """Return when it is this caller's turn; `deadline` is the seconds its call has left, None if it set none.

        Raises `RateExceeded`.
        """
        name = LIMITED[method]
        rate, ip = self._settings.rate(name), caller.ip
        if rate is None or ip is None:
            return
        if count > rate:
            raise RateExceeded(f"rate ({count}) exceeds burst size ({rate})")
        bucket = self._bucket(name, address_key(ip), rate)
        longest = LONGEST_WAIT if deadline is None else min(deadline, LONGEST_WAIT)
        seconds = bucket.take(count, self._clock.monotonic(), longest)
        if not seconds:
            return
        try:
            await self._clock.sleep(seconds)
        except asyncio.CancelledError:
            bucket.give_back(count, self._clock.monotonic())
            raise

    async def turn(self, context: ServicerContext[Any, Any], method: str, what: str, count: int = 1) -> None:
        """`wait` for the caller of this call and within its deadline; `what` opens the text of a refusal."""
        try:
            await self.wait(method, caller_of(context), count, context.time_remaining())
        except RateExceeded as cause:
            raise Exhausted(what, why=str(cause)) from cause

    def forget_idle(self) -> None:
        """Drop buckets that nobody has used for a minute; they are full again by then."""
        now = self._clock.monotonic()
        for buckets in self._buckets.values():
            while buckets and next(iter(buckets.values())).idle_since(now) >= IDLE_SECONDS:
                buckets.popitem(last=False)

    def __len__(self) -> int:
        return sum(len(buckets) for buckets in self._buckets.values())

    def _bucket(self, name: str, address: str, rate: int) -> Bucket:
        buckets = self._buckets[name]
        bucket = buckets.get(address)
        if bucket is None:
            self.forget_idle()
            if len(buckets) >= MAX_ADDRESSES:
                raise RateExceeded("too many addresses call at once", fix="try again in a minute")
            bucket = buckets[address] = Bucket(rate, self._clock.monotonic())
        buckets.move_to_end(address)
        return bucket
