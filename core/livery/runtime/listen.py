"""Where a front door listens, and getting the socket for it.

Owns: `TcpListen` and `UnixListen`, the bound sockets behind them, and clear errors when a port is taken or a folder
cannot be written. Does not own: accepting.

Invariants: a unix socket has its final mode from the moment it is visible; a live listener's socket is never taken
over; on close only our own socket file is removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, SpiffeId, X509Svid


class CannotListen(LiveryError):
    """The address is taken, or may not be used."""

    code = "cannot_listen"
    kind = Kind.CONFLICT


class DoorIdentity(Protocol):
    """Who a door is, read at every accept: cheap, and a changed value is a new object.

    `bundles` holds the bundle of the door's own trust domain and of the domains named in `admin_ids`, no others.
    """

    def svid(self) -> X509Svid:
        """Return the SVID to show."""
        ...

    def bundles(self) -> BundleMap:
        """Return the bundles that client certificates may chain to."""
        ...


@dataclass(frozen=True, slots=True)
class TcpListen:
    """TLS on TCP; a client certificate is asked for and not demanded.

    `admits_id` returns why an ID may not come in, or None. Without it, IDs of the door's own trust domain may. Port 0
    takes a free one.
    """

    host: str
    port: int
    identity: DoorIdentity
    admits_id: Callable[[SpiffeId], str | None] | None = None


@dataclass(frozen=True, slots=True)
class UnixListen:
    """A unix socket of this mode; `admits` says which effective UIDs may come in (None: all that can reach it)."""

    path: Path
    mode: int = 0o600
    admits: Callable[[int], bool] | None = None


Listen = TcpListen | UnixListen
