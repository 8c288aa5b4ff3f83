"""Ending connections whose time has come.

Owns: the rules by which an open connection has to end or to turn to a new one, and their regular application. Does not
own: refusing calls on it (`call_interceptor`), or new connections (`arrivals`).

Invariants: after bundles changed, no connection stays whose chain would not be let in today; an anonymous connection
is bounded in age and idleness whatever it sends; an expired identity keeps its connection for a grace only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from livery.errors import LiveryError
from livery.identity import BundleMap, verify_x509
from livery.runtime.front_door.connection import Connection
from livery.runtime.front_door.gate import Gate
from livery.runtime.logging import get_logger
from livery.runtime.transport.limits import DoorLimits
from livery.runtime.transport.listen import Listen, TcpListen
from livery.runtime.transport.refusals import reason_of

EVERY = 1.0  # seconds
_AT_A_TIME = 16  # chains verified before others run again: about 3 ms


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection has to end."""

    reason: str
    why: str


def ending_of(connection: Connection, limits: DoorLimits, now: datetime, stopwatch: float) -> Ending | None:
    """Return why a connection has to end now, or None."""
    caller = connection.caller
    if connection.is_ending:
        return None
    if caller.expires_at is not None and now > caller.expires_at + timedelta(seconds=limits.expired_grace):
        return Ending("identity_expired", f"its certificate was valid until {caller.expires_at.isoformat()}")
    if not caller.is_anonymous:
        return None
    if not connection.calls and stopwatch - connection.used > limits.anonymous_idle:
        return Ending("anonymous_idle", f"no call for {limits.anonymous_idle:g} s")
    if stopwatch - connection.opened > limits.anonymous_age:
        return Ending("anonymous_age", f"open for {limits.anonymous_age:g} s")
    return None


class Upkeep:
    """One door's upkeep."""

    def __init__(self, gate: Gate, listen: Listen) -> None:
        self._gate = gate
        self._listen = listen
        self._bundles = listen.identity.bundles() if isinstance(listen, TcpListen) else None

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self._gate.clock.sleep(EVERY)
            try:
                self.sweep()
                await self._recheck_if_changed()
            except Exception:  # noqa: BLE001 - a task boundary: the next sweep must come
                get_logger("livery.door").exception("the upkeep of connections failed")

    def sweep(self) -> None:
        """End what has to end by time, and turn away what should come anew."""
        now, stopwatch = self._gate.clock.now(), self._gate.clock.monotonic()
        for connection in self._gate.table:
            ending = ending_of(connection, self._gate.limits, now, stopwatch)
            if ending is not None:
                self._end(connection, ending)
            elif connection.should_turn(now, stopwatch):
                connection.turn_away(stopwatch)
            elif connection.is_spent(stopwatch):
                connection.end()

    async def recheck(self) -> None:
        """Verify every chain against the bundles of now, and close the connections of those that fail."""
        if not isinstance(self._listen, TcpListen):
            return
        bundles = self._listen.identity.bundles()
        for number, connection in enumerate(self._gate.table, 1):
            self._recheck_one(connection, self._listen, bundles)
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        self._bundles = bundles  # now and not before: what failed or was cut short is done again

    async def _recheck_if_changed(self) -> None:
        if isinstance(self._listen, TcpListen) and self._listen.identity.bundles() is not self._bundles:
            await self.recheck()

    def _recheck_one(self, connection: Connection, listen: TcpListen, bundles: BundleMap) -> None:
        identity = connection.caller.identity
        if identity is None or connection.is_ending or connection.is_lost:
            return
        try:
            # As of a time within its life: that it expired is for `ending_of`, which leaves a grace.
            verify_x509(identity.chain, bundles, min(self._gate.clock.now(), identity.not_after))
            listen.require_admitted(identity.id)
        except LiveryError as error:
            self._end(connection, Ending(reason_of(error), str(error)))

    def _end(self, connection: Connection, ending: Ending) -> None:
        caller = connection.caller
        if caller.is_anonymous:
            self._gate.refusals.count(ending.reason)
        else:
            who = {"caller": caller.describe(), "address": caller.address}
            self._gate.refusals.tell_closed(ending.reason, ending.why, **who)
        connection.end()
