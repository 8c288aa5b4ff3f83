"""The one way a policy sees a request's path: the normal form `strict`.

Owns: `normal_path`, which every call's path goes through (`model.calls`), whichever door it came by.
Does not own: routing, or the query, which stands apart from the path.

Invariant: what passes is what was sent, byte for byte, and no other spelling of it passes. Nothing is repaired: two
readers that repair differently are how `/api/%2e%2e/admin` reaches an application as `/admin` while `like "/api/*"`
allowed it. So a path is refused if it has

* an empty segment (`//`), a `.` or `..` segment, a `;` (RFC 3986 3.3 parameters), a backslash, or a raw character
  outside RFC 3986's `pchar`;
* an escape that is not `%` and two upper-case hex digits (RFC 3986 6.2.2.1);
* an escape of a character that may stand for itself (6.2.2.2: `%61` is `a`), or of `/`, `\\`, `;` or a control
  character, NUL before all;
* escapes that are not UTF-8, which applications decode to one and the same replacement character.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

MAX_PATH = 8192  # characters

# RFC 3986 3.3 pchar, less ";" - and the escapes "%XX" for what cannot stand for itself.
_SHAPE = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-F]{2})*")
_ESCAPE = re.compile(r"%([0-9A-F]{2})")
_STANDS_FOR_ITSELF = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/\\")
_DOTS = re.compile(r"/\.{1,2}(?:/|\Z)")


class NotNormal(ValueError):
    """The path is not in normal form; the text says which rule it breaks."""


def normal_path(raw: str) -> str:
    """The path itself if it is in normal form, else `NotNormal`. `raw` is the request's path without its query."""
    if len(raw) > MAX_PATH:
        raise NotNormal(f"the path is longer than {MAX_PATH} characters")
    if not _SHAPE.fullmatch(raw):
        raise NotNormal(_what_is_wrong(raw))
    if "//" in raw:
        raise NotNormal("the path has an empty segment ('//')")
    if "/." in raw and _DOTS.search(raw):
        raise NotNormal("the path has a '.' or '..' segment")
    if "%" in raw:
        _check_escapes(raw)
    return raw


def _check_escapes(raw: str) -> None:
    for match in _ESCAPE.finditer(raw):
        byte = int(match[1], 16)
        if byte < 0x20 or byte == 0x7F:
            raise NotNormal(f"the path has an escaped control character ({match[0]})")
        if byte in _STANDS_FOR_ITSELF:
            raise NotNormal(f"the path has an escape that is another spelling of {chr(byte)!r} ({match[0]})")
    try:
        unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise NotNormal("the path's escapes are not UTF-8") from None


def _what_is_wrong(raw: str) -> str:
    if not raw.startswith("/"):
        return "the path does not begin with '/'"
    strange = next((c for c in raw if not _SHAPE.fullmatch("/" + c) and c != "%"), None)
    if strange is not None:
        return f"the path holds {strange!a}, which is never part of a path in normal form"
    return "the path has a bad escape: '%' and two upper-case hex digits are one"
