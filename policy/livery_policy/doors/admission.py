"""Who may use which door: one table of rights, by what is proved about the peer and nothing else.

Owns: the two rights. Does not own: finding out who the peer is (`livery.runtime.http`), or what anybody asks.

* **Asking** (AuthZEN) is for the processes whose UID is in `admit_uids`, and for the SPIFFE IDs in `admit_ids`. Whoever
  may ask, may ask about any subject: an enforcement point speaks for its callers.
* **Administration** is for root and the server's own user, on the unix socket.

No credentials at all is `NoCredentials` (401); known but not in the table is `NotAdmitted` (403).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime

from livery.errors import Kind
from livery.identity import SpiffeId
from livery.runtime.http import HttpPeer
from livery_policy.errors import PolicyError


class NoCredentials(PolicyError):
    """Nothing is proved about the peer."""

    code = "no_credentials"
    kind = Kind.UNAUTHENTICATED


class NotAdmitted(PolicyError):
    """The peer is known, and this is not for it."""

    code = "not_admitted"
    kind = Kind.DENIED


class Admission:
    """The rights of one server. `admit_uids` None admits the server's own user and root."""

    def __init__(self, admit_uids: Iterable[int] | None, admit_ids: Iterable[SpiffeId]) -> None:
        self._administrators = frozenset({0, os.geteuid()})
        self._uids = self._administrators if admit_uids is None else frozenset(admit_uids)
        self._ids = frozenset(admit_ids)

    def asker(self, peer: HttpPeer, now: datetime) -> str:
        """Who asks, in one word, or raise."""
        if peer.process is not None:
            if peer.process.uid in self._uids:
                return peer.describe()
            raise NotAdmitted("you are not admitted here", fix="ask the operator to list your user in admit_uids")
        if peer.identity is None:
            raise NoCredentials("nothing is known about you", fix="show a client certificate (an X.509-SVID)")
        if now >= peer.identity.not_after:
            raise NoCredentials("your certificate has ended", fix="connect again with your current one")
        if peer.identity.id in self._ids:
            return peer.describe()
        raise NotAdmitted("you are not admitted here", fix="ask the operator to list your SPIFFE ID in admit_ids")

    def administrator(self, peer: HttpPeer) -> str:
        """Who administers, or raise."""
        if peer.process is None and peer.identity is None:
            raise NoCredentials("nothing is known about you", fix="use the server's unix socket")
        if peer.process is None or peer.process.uid not in self._administrators:
            fix = "use the server's unix socket, as root or as the server's own user"
            raise NotAdmitted("administration is not for you", fix=fix)
        return peer.describe()
