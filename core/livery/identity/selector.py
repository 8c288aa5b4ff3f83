"""Selectors: what attestation found out about a node or a workload, as `type:value`.

Owns: `Selector`, its text form and bounds. Does not own: which selectors an attestor reports, or matching.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from livery.identity.errors import InvalidSelector

MAX_TYPE = 255
MAX_VALUE = 4096  # bytes: PATH_MAX, the longest thing an attestor reports

# A control character forges log lines or speaks to a terminal (U+009B as well as escape), a line separator is taken for
# one by some readers, and a lone surrogate (a file name that is not UTF-8) cannot go on the wire.
_STRANGE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """`unix:uid:1000` has the type `unix` and the value `uid:1000`."""

    type: str
    value: str

    def __post_init__(self) -> None:
        if why := _fault(self.type, self.value):
            raise InvalidSelector("not a selector", why=why, fix="write it like unix:uid:1000")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `type:value`; the first colon ends the type."""
        kind, _, value = text.partition(":")
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


def _fault(kind: str, value: str) -> str:
    if not kind or not value:
        return "its type or its value is empty"
    if ":" in kind:
        return "its type holds a colon"
    if len(kind) > MAX_TYPE or len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE:
        return f"its type is longer than {MAX_TYPE} or its value than {MAX_VALUE} bytes"
    if _STRANGE.search(kind) or _STRANGE.search(value):
        return "it holds a control character or text that is not Unicode"
    return ""
