"""A join token: a secret that admits one agent key, until it expires.

Owns: `JoinToken` and the answer to "may this key use it now?". Does not own: the atomic spending (`store.tokens`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token and, from its first use, the key it is bound to (SHA-256 of the SubjectPublicKeyInfo).

    Binding instead of deleting is what lets an agent whose reply was lost ask again with the same key. The value is a
    secret until then and is left out of `repr`.
    """

    value: str = field(repr=False)
    expires_at: datetime
    bound_key: bytes | None = None

    def expired(self, at: datetime) -> bool:
        """Whether the token has ended."""
        return self.expires_at <= at

    def admits(self, key_hash: bytes) -> bool:
        """Whether this key may use the token: it is unbound, or bound to this very key."""
        return self.bound_key is None or self.bound_key == key_hash

    @property
    def redacted(self) -> str:
        """The only form that may be logged: four characters and an ellipsis."""
        return f"join_token/{self.value[:4]}…"
