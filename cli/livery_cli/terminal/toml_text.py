"""Flat tables as TOML text, for the configurations that `livery up` and `livery ca init` write.

Owns: quoting. A library would be another dependency for four kinds of value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


def toml(table: Mapping[str, object], comment: str = "") -> str:
    """A table of texts, numbers, booleans, lists and tables as TOML; nested tables come last."""
    lines = [f"# {line}" for line in comment.splitlines()]
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines += [f"{key} = {_value(value)}" for key, value in table.items() if key not in nested]
    for name, inner in nested.items():
        lines += ["", *_section(name, inner)]
    return "\n".join(lines) + "\n"


def _section(name: str, table: Mapping[str, object]) -> list[str]:
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in plain.items())]
    for key, inner in table.items():
        if isinstance(inner, Mapping):
            lines += ["", *_section(f"{name}.{key}", inner)]
    return lines


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # A JSON string is a TOML basic string (TOML has no surrogate pairs: nothing above ASCII is escaped), but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
