"""Policy text cut into its statements, each with the line it begins on.

Owns: `PolicyFile`, `Statement` and the cutting. Does not own: Cedar's grammar; a statement is whatever stands before a
`;` that is in no string and no comment, and Cedar is asked about each one alone. That is how an error gets its line:
Cedar itself reports none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_FILE = 1024 * 1024  # bytes of one policy file

_PIECE = re.compile(
    r"""
      (?P<blank>\s+)
    | (?P<comment>//[^\n]*)
    | (?P<string>"(?:[^"\\]|\\.)*(?:"|\Z))
    | (?P<end>;)
    | (?P<other>[^\s"/;]+|/)
    """,
    re.VERBOSE | re.DOTALL,
)
_MARK = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|&&|[(){}\[\]]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A file of policies: its stem (the first half of its policies' ids), the name to show, and its text."""

    stem: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy's text, its annotations included, and the line of the file it begins on."""

    text: str
    line: int
    ended: bool = True  # by its `;`


def statements(text: str) -> list[Statement]:
    """The statements of a file, in order. Comments between them are left out."""
    found: list[Statement] = []
    start: int | None = None
    for match in _PIECE.finditer(text):
        if start is None and match.lastgroup in {"blank", "comment"}:
            continue
        if start is None:
            start = match.start()
        if match.lastgroup == "end":
            found.append(_statement(text, start, match.end(), ended=True))
            start = None
    if start is not None:
        found.append(_statement(text, start, len(text), ended=False))
    return found


def conjuncts(condition: str) -> list[str]:
    """The parts of a condition between its outermost `&&`s, as they are written."""
    parts: list[str] = []
    depth = start = 0
    for match in _MARK.finditer(condition):
        mark = match[0]
        if mark in {"(", "[", "{"}:
            depth += 1
        elif mark in {")", "]", "}"}:
            depth -= 1
        elif mark == "&&" and depth == 0:
            parts.append(condition[start : match.start()])
            start = match.end()
    parts.append(condition[start:])
    return [" ".join(part.split()) for part in parts]


def conditions(statement: str) -> list[str]:
    """The texts inside the braces of a statement's `when` and `unless`, in order."""
    found: list[str] = []
    depth = start = 0
    for match in _MARK.finditer(statement):
        if match[0] == "{":
            depth += 1
            if depth == 1:
                start = match.end()
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                found.append(statement[start : match.start()])
    return found


def _statement(text: str, start: int, end: int, *, ended: bool) -> Statement:
    return Statement(text[start:end], text.count("\n", 0, start) + 1, ended)
