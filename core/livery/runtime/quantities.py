"""Durations and sizes as people write them: `"1h30m"`, `"10MiB"`; a bare number would leave the unit to memory.

Owns: their grammar and their pydantic types. Does not own: limits; a field adds its own. Pure.

Grammar: a duration is one or more of `<whole number><unit>` with units d, h, m, s, ms, largest first; a size is one
`<whole number><unit>` with units B, KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (powers of 1000).
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer

_DURATION: Final = re.compile(
    r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?", re.ASCII
)
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?(B|[KMGT]iB|[kMGT]B)", re.ASCII)
_BYTES: Final = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_LONGEST: Final = timedelta(days=100 * 366)


def parse_duration(text: str) -> timedelta:
    """`"1h30m"` → 1.5 hours. Raises ValueError, which does not repeat the text."""
    matched = _DURATION.fullmatch(text) if text else None
    if matched is None:
        raise ValueError('write a duration with its unit, as in "90s", "1h30m" or "500ms"')
    days, hours, minutes, seconds, milliseconds = (int(part or 0) for part in matched.groups())
    try:
        found = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    except OverflowError:
        found = timedelta.max
    if found > _LONGEST:
        raise ValueError("a duration is at most 100 years")
    return found


def format_duration(duration: timedelta) -> str:
    """1.5 hours → `"1h30m"`; what `parse_duration` reads back, to the millisecond."""
    milliseconds = round(duration.total_seconds() * 1000)
    parts: list[str] = []
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """`"10MiB"` → bytes. Raises ValueError, which does not repeat the text."""
    matched = _SIZE.fullmatch(text)
    if matched is None:
        raise ValueError('write a size with its unit, as in "64KiB" or "10MiB"')
    return int(matched[1]) * _BYTES[matched[2]]


def format_size(size: int) -> str:
    """Bytes → the largest binary unit that divides them: `"10MiB"`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _to_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError('write a duration with its unit, as in "90s", "1h30m" or "500ms"')


def _to_size(value: object) -> object:
    # A bool is an int to Python and a mistake in a configuration.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError('write a size with its unit, as in "64KiB" or "10MiB"')


Duration = Annotated[timedelta, BeforeValidator(_to_duration), PlainSerializer(format_duration)]
"""A timedelta, written as text."""

Size = Annotated[int, BeforeValidator(_to_size), PlainSerializer(format_size)]
"""A number of bytes, written as text; code may give the number itself."""
