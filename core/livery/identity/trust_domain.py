"""The name of a trust domain (SPIFFE-ID 2.1).

Owns: `TrustDomain` and the rules for its characters and length. Does not own: its keys (`bundle`) or the IDs in it
(`spiffe_id`).

Invariant: a `TrustDomain` that exists is valid. Nothing is repaired on the way in: upper case is refused, not lowered,
so that one domain has one spelling in every map, log and certificate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from livery.identity.errors import InvalidTrustDomain

SCHEME = "spiffe://"
MAX_NAME = 255  # bytes: the longest host of RFC 3986 3.2.2

# SPIFFE-ID 2.1. ASCII by its explicit classes; always `fullmatch`, since `$` would let a final newline pass.
_NAME = re.compile(r"[a-z0-9._-]{1,255}")
_WRITING = "lower-case letters, digits, '.', '-' and '_' only, 255 bytes at most"


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """A trust domain by its name, `example.org`. A name that looks like an IP address is a name (SPIFFE-ID 2.1)."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise _refusal(self.name)
        # Legal by the letter, but a parent directory to whoever names a file or a URL path after its domain.
        if self.name in {".", ".."}:
            raise InvalidTrustDomain("not a trust domain", why=f"{self.name!r} is a relative path")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `example.org` or `spiffe://example.org`; nothing else (no path, port, user or final slash)."""
        return cls(text.removeprefix(SCHEME))

    def __str__(self) -> str:
        return self.name


def _refusal(text: str) -> InvalidTrustDomain:
    if not text:
        return InvalidTrustDomain("not a trust domain", why="the name is empty", fix="write it like example.org")
    if len(text) > MAX_NAME:
        return InvalidTrustDomain("not a trust domain", why=f"{len(text)} characters are too many", fix=_WRITING)
    strange = next((c for c in text if not _NAME.fullmatch(c)), "")
    return InvalidTrustDomain(f"not a trust domain: {text!r}", why=f"it holds {strange!a}", fix=_WRITING)
