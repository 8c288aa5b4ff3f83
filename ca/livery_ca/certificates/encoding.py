"""DER by hand (X.690), for the few values that are put together from parts which exist already.

Owns: a value's tag and length. Does not own: what the parts are; `cryptography` encodes everything else.
"""

from __future__ import annotations

BIT_STRING, SEQUENCE = 0x03, 0x30


def value(tag: int, content: bytes) -> bytes:
    """Tag, length, content (X.690 8.1)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def bits(content: bytes) -> bytes:
    """A bit string of whole bytes (X.690 8.6.2.2: before the bits, how many are left out)."""
    return value(BIT_STRING, b"\x00" + content)
