"""JSON as the standards mean it: one value for each name, no NaN or infinity, no bombs.

Owns: `parse`, the only way JSON enters this package. Does not own: what the values mean.

Invariant: raises `NotJson` and nothing else. Two readers of one accepted text cannot come to different values: a
duplicate name, which one reader takes first and another last, is refused at every depth.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 32
_SURELY_FINITE = 308  # digits; the largest double has 309


class NotJson(Exception):
    """The text is not JSON we accept. Never leaves this package: callers turn it into their own error."""


def parse(data: bytes | str, *, max_bytes: int) -> Any:
    """Read one JSON value of at most `max_bytes` bytes of UTF-8."""
    if len(data) > max_bytes:
        raise NotJson(f"more than {max_bytes} bytes")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
        _refuse_deep_nesting(value)
        if "\\u" in text:
            _refuse_lone_surrogates(value)
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except ValueError as e:  # JSONDecodeError and UnicodeError are its children
        raise NotJson(str(e)[:200]) from e
    return value


def dump(value: Any) -> bytes:
    """Write JSON as compact UTF-8."""
    return json.dumps(value, separators=(",", ":")).encode()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:50]!a} appears twice")
        found[name] = value
    return found


def _whole(text: str) -> int:
    if len(text) > _SURELY_FINITE:  # to a reader whose every number is a double, a whole number can be infinite too
        _finite(text)
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:50]} is more than a number can be")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuse_deep_nesting(value: Any) -> None:
    # What the parser survives, a recursive reader of its result further in may not.
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = [inner for node in level for inner in _containers(node)]
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _containers(node: list[Any] | dict[str, Any]) -> list[list[Any] | dict[str, Any]]:
    children = node.values() if isinstance(node, dict) else node
    return [child for child in children if isinstance(child, list | dict)]


def _refuse_lone_surrogates(value: Any) -> None:
    # "\ud800" is a str in Python that no encoder accepts later, far from here.
    json.dumps(value, ensure_ascii=False).encode()
