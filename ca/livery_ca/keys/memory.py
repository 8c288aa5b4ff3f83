"""Keys in memory: gone with the process. For tests, drills, and authorities that are re-made at each start.

Owns: the keys it made. Invariant: nothing is written anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from livery_ca.certificates import algorithm
from livery_ca.certificates.algorithm import KeyType, PrivateKey, PublicKey
from livery_ca.keys.key_store import missing


class MemoryKeyStore:
    """A `KeyStore` that forgets."""

    durable = False

    def __init__(self) -> None:
        self._keys: dict[str, PrivateKey] = {}

    def generate(self, key_id: str, key_type: KeyType) -> PublicKey:
        """Make a key under this name."""
        key = algorithm.generate(key_type)
        self._keys[key_id] = key
        return key.public_key()

    def public_key(self, key_id: str) -> PublicKey:
        """The public half."""
        return self._key(key_id).public_key()

    def sign(self, key_id: str, messages: Sequence[bytes]) -> list[bytes]:
        """One signature per message."""
        key = self._key(key_id)
        return [algorithm.sign(key, message) for message in messages]

    def retire(self, key_id: str) -> None:
        """Forget the key."""
        self._keys.pop(key_id, None)

    def health(self) -> str:
        """Memory is always well."""
        return ""

    def _key(self, key_id: str) -> PrivateKey:
        key = self._keys.get(key_id)
        if key is None:
            raise missing(key_id, fix="keys in memory end with the process: start with a fresh state")
        return key
