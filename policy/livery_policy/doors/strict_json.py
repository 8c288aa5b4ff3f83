"""JSON as the decision API takes it (I-JSON, RFC 7493): one object, no name twice, not too deep.

Owns: `read_object`. Does not own: what the object means.

Invariants: raises `Malformed` and nothing else. msgspec alone would keep the last of two equal names and answers a
depth of thousands with RecursionError, which is none of its own errors. So: (1) the text without its strings is looked
over for depth; (2) it is parsed; (3) the names of all objects are counted and compared with the colons of (1): one
colon stands for one name, and a name that was there twice is missing from the count. That finds duplicates exactly, in
half the time a parser with a hook takes.
"""

from __future__ import annotations

import re

import msgspec

MAX_DEPTH = 32

# From a quote to the next unescaped one. It always matches, to the end of the text if need be: a pattern that could
# fail would be tried again at every quote, and a hostile text of quotes would cost its length squared.
_STRING = re.compile(rb'"[^"\\]*(?:\\.?[^"\\]*)*"?', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"{}[]"))
_decode = msgspec.json.Decoder().decode


class Malformed(ValueError):
    """The text is no such JSON; the message says why and shows nothing of it."""


def read_object(data: bytes) -> dict[str, object]:
    """The JSON object in `data`."""
    bones = _STRING.sub(b"", data)
    _check_depth(bones)  # 1
    try:
        value = _decode(data)  # 2
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
        raise Malformed("the body is not valid JSON in UTF-8") from e
    if not isinstance(value, dict):
        raise Malformed("the body is not a JSON object")
    if _names(value) != bones.count(b":"):  # 3
        raise Malformed("the body has an object with one name twice")
    return value


def _check_depth(bones: bytes) -> None:
    depth = 0
    for mark in bones.translate(None, _NO_BRACKET):
        if mark in b"{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise Malformed(f"the body is nested deeper than {MAX_DEPTH}")
        else:
            depth -= 1


def _names(value: dict[str, object]) -> int:
    """How many names all objects of the value have together."""
    count = 0
    waiting: list[object] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            count += len(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return count
