"""A door's identity that a test can change while the door is open."""

from __future__ import annotations

from collections.abc import Callable

from livery.errors import LiveryError
from livery.identity import BundleMap, X509Svid
from livery.workload.context import X509Context
from tests.pki import TestCa


class ChangingIdentity:
    """A `DoorIdentity` whose SVID and bundles are what the test last set; `broken` makes it fail as a real one can."""

    def __init__(self, svid: X509Svid, bundles: BundleMap) -> None:
        self.current = svid
        self.trusted = bundles
        self.broken: LiveryError | None = None
        self.subscribers: list[Callable[[X509Context | None], None]] = []

    @classmethod
    def of(cls, ca: TestCa, path: str = "/server") -> ChangingIdentity:
        """An identity of this authority that trusts its own trust domain."""
        return cls(ca.issue(path), BundleMap.of(ca.bundle()))

    def svid(self) -> X509Svid:
        if self.broken is not None:
            raise self.broken
        return self.current

    def bundles(self) -> BundleMap:
        if self.broken is not None:
            raise self.broken
        return self.trusted

    def on_update(self, callback: Callable[[X509Context | None], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    def rotate(self, svid: X509Svid | None = None, bundles: BundleMap | None = None) -> None:
        """Change, and tell the subscribers."""
        self.current, self.trusted = svid or self.current, bundles or self.trusted
        for callback in list(self.subscribers):
            callback(None)
