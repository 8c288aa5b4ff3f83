"""How much of us a stranger, an identity and everybody together may hold: the bounds of a front door.

Owns: `DoorLimits` (the numbers) and `Admission` (the counting). Does not own: request rates (each door's own table) nor
what happens to a refused connection.

Invariants: every connection has exactly one `Seat` from accept to close; anonymous and half-shaken connections are
counted by address and in total, apart from authenticated ones, so that a stranger can only crowd out strangers.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field

from livery.errors import Kind, LiveryError

DESCRIPTORS_PER_CONNECTION = 4  # the peer's, our end and grpc's end of the private socket, and a pidfd


class OverLimit(LiveryError):
    """A bound of the door is reached; `reason` is the stable word that metrics and the audit log use."""

    code = "over_limit"
    kind = Kind.EXHAUSTED

    def __init__(self, reason: str, limit: int) -> None:
        super().__init__("too many connections", why=f"{reason}: the limit is {limit}", fix="try again later")
        self.reason = reason


_STRANGERS = frozenset({"handshakes", "anonymous"})


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Bounds of one door. Times in seconds, sizes in bytes, everything else is a count."""

    connections: int = 2048  # all together; times four is what the door may need of RLIMIT_NOFILE
    handshakes: int = 512  # accepted, TLS not finished; a quarter of `connections` at most
    handshake_timeout: float = 10.0
    anonymous: int = 512  # TLS without a client certificate; a quarter of `connections` at most
    anonymous_per_address: int = 128  # anonymous and half-shaken ones; IPv6 counts by /64
    anonymous_idle: float = 30.0  # without a call
    anonymous_age: float = 300.0  # calls or not: nothing a stranger may ask for takes longer
    anonymous_bytes: int = 1024 * 1024  # from each in all: grpc holds what has come of a message until it is whole
    per_identity: int = 64  # one SPIFFE ID
    per_uid: int = 1536  # one effective UID on a unix socket
    buffered: int = 128 * 1024  # per direction, before the sender is made to wait
    streams_per_connection: int = 256
    message_size: int = 4 * 1024 * 1024
    mute: float = 30.0  # without a byte from the peer, before it is asked for a sign of life
    mute_timeout: float = 10.0  # to answer that
    connection_age: float = 180.0  # over TCP: then new calls go to a new connection; as SPIRE's server does
    expired_grace: float = 10.0  # an expired caller's calls are refused at once; its connection ends after this

    @property
    def descriptors(self) -> int:
        """How many file descriptors a full door needs."""
        return self.connections * DESCRIPTORS_PER_CONNECTION

    def bound(self, name: str) -> int:
        """Return the bound of this name as it counts: whatever was configured, half the seats are not for strangers."""
        configured: int = getattr(self, name)
        return min(configured, max(1, self.connections // 4)) if name in _STRANGERS else configured


Group = tuple[str, str]  # the bound's name in DoorLimits, and whom it is counted for
_ALL: Group = ("connections", "")
_SHAKING: Group = ("handshakes", "")


def address_key(ip: str) -> str:
    """Return what the holder of an address is counted under: one IPv6 host commands a whole /64."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


@dataclass(frozen=True, slots=True)
class Admission:
    """The counts of one door; its methods raise `OverLimit`."""

    limits: DoorLimits
    _counts: Counter[Group] = field(default_factory=Counter)

    def seat_stranger(self, ip: str) -> Seat:
        """Return a seat for a TCP connection whose handshake begins."""
        return self._seat(_ALL, _SHAKING, ("anonymous_per_address", address_key(ip)))

    def seat_process(self, uid: int) -> Seat:
        """Return a seat for a process of this machine."""
        return self._seat(_ALL, ("per_uid", str(uid)))

    def count(self, bound: str) -> int:
        """Return how many connections a bound counts at the moment, all holders together."""
        return sum(number for (name, _), number in self._counts.items() if name == bound)

    def enter(self, group: Group) -> None:
        """Count one more in a group."""
        limit = self.limits.bound(group[0])
        if self._counts[group] >= limit:
            raise OverLimit(group[0], limit)
        self._counts[group] += 1

    def leave(self, group: Group) -> None:
        """Count one less in a group."""
        self._counts[group] -= 1
        if not self._counts[group]:
            del self._counts[group]  # names come from peers: keep none that nobody sits under

    def _seat(self, *groups: Group) -> Seat:
        seat = Seat(self)
        try:
            for group in groups:
                seat.join(group)
        except OverLimit:
            seat.leave()
            raise
        return seat


@dataclass(eq=False, slots=True)
class Seat:
    """One connection's place in the counts."""

    _admission: Admission
    _groups: list[Group] = field(default_factory=list)

    def become_anonymous(self) -> None:
        """The handshake finished without a client certificate; the address goes on counting."""
        self.join(("anonymous", ""))
        self._quit(_SHAKING)

    def become_identity(self, name: str) -> None:
        """The handshake finished and the peer is `name`, which is counted from now on in place of its address."""
        self.join(("per_identity", name))
        for group in self._groups[1:-1]:
            self._quit(group)

    def join(self, group: Group) -> None:
        """Be counted in one more group."""
        self._admission.enter(group)
        self._groups.append(group)

    def leave(self) -> None:
        """The connection is gone. May be called twice."""
        for group in tuple(self._groups):
            self._quit(group)

    def _quit(self, group: Group) -> None:
        self._groups.remove(group)
        self._admission.leave(group)
