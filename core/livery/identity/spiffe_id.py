"""SPIFFE IDs (SPIFFE-ID 2): the one name by which a workload is known.

Owns: `SpiffeId`, its grammar and its length. Does not own: who may have which ID (the CA's entries) or proof that a
caller has one (`verify`).

Invariants: a `SpiffeId` that exists is valid and has exactly one spelling, so equality of values is equality of
identities. Nothing is normalised: no lower-casing, no percent-decoding, no dot-segment removal. Each of those has been
a way to have two names for one workload, or one name for two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from livery.identity.errors import InvalidSpiffeId, InvalidTrustDomain
from livery.identity.trust_domain import SCHEME, TrustDomain

MAX_URI = 2048  # bytes, the whole URI (SPIFFE-ID 2.3)

# SPIFFE-ID 2.2: no empty segment, no "." or "..", no final slash, no percent-encoding. "..." is an ordinary segment.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*")
_WRITING = "write it like spiffe://example.org/ns/shop/sa/orders"


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """`spiffe://<trust domain><path>`; `path` is empty (the trust domain's own ID) or begins with a slash."""

    trust_domain: TrustDomain
    path: str = ""

    def __post_init__(self) -> None:
        # First, since to find what is wrong with a path costs by its length, which a stranger chooses.
        if len(SCHEME) + len(self.trust_domain.name) + len(self.path) > MAX_URI:
            raise InvalidSpiffeId("not a SPIFFE ID", why=f"longer than {MAX_URI} bytes", fix="shorten the path")
        if not _PATH.fullmatch(self.path):
            raise _path_refusal(self.path)

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read a SPIFFE ID from its URI, exactly as written."""
        if not uri.startswith(SCHEME):
            raise InvalidSpiffeId(f"not a SPIFFE ID: {_shown(uri)}", why="it is no spiffe:// URI", fix=_WRITING)
        name, slash, rest = uri[len(SCHEME) :].partition("/")
        try:
            trust_domain = TrustDomain(name)
        except InvalidTrustDomain as e:
            raise InvalidSpiffeId(f"not a SPIFFE ID: {_shown(uri)}", why=f"its trust domain: {e.why}", fix=e.fix) from e
        return cls(trust_domain, slash + rest)

    @classmethod
    def of(cls, trust_domain: TrustDomain, path: str) -> Self:
        """The ID with this path (`""` or `/a/b`) in this trust domain."""
        return cls(trust_domain, path)

    @property
    def is_root(self) -> bool:
        """Whether this is the trust domain's own ID, which names its authority and no workload."""
        return not self.path

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments: `("ns", "shop")` for `/ns/shop`, `()` for the root."""
        return tuple(self.path[1:].split("/")) if self.path else ()

    @property
    def is_reserved(self) -> bool:
        """Whether the path belongs to the servers and agents themselves: `/spire` and what is under it."""
        return self.path == "/spire" or self.path.startswith("/spire/")

    def member_of(self, trust_domain: TrustDomain) -> bool:
        """Whether this ID is in the trust domain."""
        return self.trust_domain == trust_domain

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain.name}{self.path}"


def _path_refusal(path: str) -> InvalidSpiffeId:
    if not path.startswith("/"):
        why = "the path does not begin with a slash"
    elif path.endswith("/"):
        why = "the path ends with a slash"
    elif "//" in path:
        why = "the path has an empty segment"
    elif {".", ".."} & set(path.split("/")):
        why = "the path has a '.' or '..' segment"
    else:
        strange = next((c for c in path if not re.fullmatch(r"[A-Za-z0-9._/-]", c)), "")
        why = f"the path holds {strange!a}; only letters, digits, '.', '-' and '_' are allowed"
    return InvalidSpiffeId(f"not a SPIFFE ID: its path is {_shown(path)}", why=why, fix=_WRITING)


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"
