"""Text from elsewhere, as it may be written to a terminal.

Owns: telling characters that speak to a terminal from those that are read. Does not own: where texts come from: hints,
versions and paths are chosen by others than whoever reads them.
"""

from __future__ import annotations


def plain(text: str) -> str:
    """The text with every character that cannot be printed as its escape, but for the ends of lines."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """The same on a single line."""
    return plain(text).replace("\n", r"\n")
