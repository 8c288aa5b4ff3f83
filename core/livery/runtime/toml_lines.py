"""In which line of a TOML file a key stands; the standard library's reader does not say.

Owns: a scan of table headers and keys, good enough to point a person at a line. Does not own: reading values; the file
has already been accepted by `tomllib` when it comes here. Pure.

Invariant: never raises; a key it cannot place is simply not in the answer.
"""

from __future__ import annotations

import re
from typing import Final

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_TABLE: Final = re.compile(rf"[ \t]*\[(?P<array>\[)?[ \t]*(?P<name>{_DOTTED})[ \t]*\]")
_KEY: Final = re.compile(rf"[ \t]*(?P<name>{_DOTTED})[ \t]*=(?P<value>.*)")
_PARTS: Final = re.compile(_PART)
_MULTILINE: Final = re.compile(r'"""|\'\'\'')

Path = tuple[str | int, ...]


def key_lines(text: str) -> dict[Path, int]:
    """Line numbers (from 1) of every table and key, by path: `("ca", "keys", "path")`; elements of arrays by index."""
    found: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    table: Path = ()
    inside: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if inside is not None:
            inside = None if line.count(inside) % 2 else inside
        elif header := _TABLE.match(line):
            table = _resolve(_split(header["name"]), arrays)
            if header["array"]:
                arrays[table] = arrays.get(table, -1) + 1
                table = (*table, arrays[table])
            _place(found, table, number)
        elif key := _KEY.match(line):
            _place(found, table + _split(key["name"]), number)
            quotes = _MULTILINE.findall(key["value"])
            inside = quotes[0] if quotes and quotes.count(quotes[0]) % 2 else None
    return found


def _place(found: dict[Path, int], path: Path, number: int) -> None:
    for length in range(1, len(path) + 1):
        found.setdefault(path[:length], number)


def _split(name: str) -> Path:
    return tuple(part.strip("\"'") for part in _PARTS.findall(name))


def _resolve(path: Path, arrays: dict[Path, int]) -> Path:
    """A header below an array of tables means its latest element (TOML 1.0, Array of Tables)."""
    resolved: Path = ()
    for part in path[:-1]:
        resolved = (*resolved, part)
        if resolved in arrays:
            resolved = (*resolved, arrays[resolved])
    return (*resolved, path[-1])
