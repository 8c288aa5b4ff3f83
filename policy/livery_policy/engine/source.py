"""Policy text cut into its statements, each with the line it begins on.

Owns: `PolicyFile`, `Statement`, the cutting, and how deep a statement is. Does not own: Cedar's grammar; a statement is
whatever stands before a `;` that is in no string and no comment, and Cedar is asked about each one alone. That is how
an error gets its line: Cedar itself reports none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_FILE = 1024 * 1024  # bytes of one policy file
MAX_DEPTH = 200  # levels of one statement; Cedar allows 100, and counts only after it has walked them all

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
_LEVEL = re.compile(
    r"""
      //[^\n]* | "(?:[^"\\]|\\.)*"
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<comma>,)
    | (?P<link>&&|\|\||\bif\b)
    | (?P<step>[=!<>]=|[.+*!<>-]|\b(?:has|in|is|like)\b)
    """,
    re.VERBOSE | re.DOTALL,
)


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


def depth(statement: str) -> int:
    """How deep the tree of a statement is at most: each bracket, each link of a chain and each step is one below.

    A tree of a thousand levels is more than a thread's stack holds, and Cedar would take the process with it.
    """
    outer: list[_Group] = []
    here = _Group()
    for mark in _LEVEL.finditer(statement):
        match mark.lastgroup:
            case "open":
                outer.append(here)
                here = _Group()
            case "close" if outer:
                inner, here = here, outer.pop()
                here.below = max(here.below, inner.depth() + 1)
                here.steps += mark[0] == "]"  # `a["b"]["c"]` is a chain
            case "comma":
                here.next_element()
            case "link":
                here.next_link()
            case "step":
                here.steps += 1
    while outer:  # what is never closed is never parsed, but by whom?
        inner, here = here, outer.pop()
        here.below = max(here.below, inner.depth() + 1)
    return here.depth()


@dataclass(slots=True)
class _Group:
    """What stands between two brackets: its elements between commas, each a chain of links (`&&`, `||`, `if`)."""

    steps: int = 0  # of the link that is read
    below: int = 0  # the deepest bracket in it
    links: int = 0  # of the element that is read
    link: int = 0  # its deepest one
    element: int = 0  # the deepest one before it

    def depth(self) -> int:
        return max(self.element, self.links + max(self.link, self.steps + self.below))

    def next_link(self) -> None:
        self.link = max(self.link, self.steps + self.below)
        self.links += 1
        self.steps = self.below = 0

    def next_element(self) -> None:
        self.element = self.depth()
        self.steps = self.below = self.links = self.link = 0


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
