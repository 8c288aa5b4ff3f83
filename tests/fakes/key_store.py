"""A key store in memory that can be told to fail, to forge, or to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from livery_ca.keys.memory import MemoryKeyStore


class FakeKeyStore(MemoryKeyStore):
    """A `KeyStore`. `error` is raised by signing, `tamper` changes its answer, `gate` (when set) holds it up."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.tamper: Callable[[list[bytes]], list[bytes]] | None = None
        self.gate: threading.Event | None = None
        self.signed: list[bytes] = []  # every message that got a signature

    def sign(self, key_id: str, messages: Sequence[bytes]) -> list[bytes]:
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        signatures = super().sign(key_id, messages)
        self.signed += messages
        return signatures if self.tamper is None else self.tamper(signatures)
