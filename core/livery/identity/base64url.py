"""Base64url as JOSE writes it (RFC 7515 2): without padding, and one spelling for each value.

Owns: `encode` and `decode`. Does not own: what the bytes mean.

Invariant: `decode` accepts exactly what `encode` gives, and raises ValueError for everything else.
"""

from __future__ import annotations

import base64


def encode(data: bytes) -> str:
    """Write bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Read bytes; the text must be how we would write them."""
    # The library passes over strange characters and spare bits (RFC 4648 3.5).
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise ValueError("it is not canonical base64url")
    return data
