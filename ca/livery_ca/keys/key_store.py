"""What the authority needs of a place that keeps private keys.

Owns: the Protocol, its errors, and the form of a key's name. Does not own: any key.

Every method may block (a disk, a network, an HSM): callers run them in worker threads, and several at a time, since an
authority is made or retired while another one signs. A key signs by the algorithm that goes with its type
(`certificates.algorithm`), so no call can ask for a weaker one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import ClassVar, Protocol

from livery.errors import Kind, LiveryError
from livery_ca.certificates.algorithm import KeyType, PublicKey

KEY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class KeyStoreError(LiveryError):
    """The root of what a key store raises."""

    code: ClassVar[str] = "key_store"


class KeyMissing(KeyStoreError):
    """There is no key of that name."""

    code: ClassVar[str] = "key_missing"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class KeyUnreadable(KeyStoreError):
    """The key is there and cannot be read: damaged, or sealed by another key-encryption key."""

    code: ClassVar[str] = "key_unreadable"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class KeyStoreUnavailable(KeyStoreError):
    """The store does not answer now."""

    code: ClassVar[str] = "key_store_unavailable"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class KeyStore(Protocol):
    """Keeps private keys and signs with them; they never leave it.

    `durable` says whether a key outlives the process; where it does not, authorities are re-made at each start.
    """

    @property
    def durable(self) -> bool:
        """Whether keys outlive the process."""
        ...

    def generate(self, key_id: str, key_type: KeyType) -> PublicKey:
        """Make a key under this new name, durably, and return its public half."""
        ...

    def public_key(self, key_id: str) -> PublicKey:
        """The public half. Raises `KeyMissing`."""
        ...

    def sign(self, key_id: str, messages: Sequence[bytes]) -> list[bytes]:
        """One signature per message, in order, as X.509 carries them (ECDSA: DER of r and s)."""
        ...

    def retire(self, key_id: str) -> None:
        """Destroy the key. Without effect if there is none. Raises `KeyStoreUnavailable` where it is still there."""
        ...

    def health(self) -> str:
        """What is wrong with the store, or an empty text."""
        ...


def new_key_id(prefix: str) -> str:
    """A fresh name for a key: `x509-…`, `jwt-…`."""
    return f"{prefix}-{secrets.token_hex(8)}"


def missing(key_id: str, *, fix: str = "restore the key store from the backup that goes with this state") -> KeyMissing:
    """The error for a key that is not there."""
    return KeyMissing(f"there is no key {key_id}", why="the state names it and the key store does not have it", fix=fix)
