"""What must never reach a log: keys, tokens, passwords - by the name of the field and by the look of the value.

Owns: the rules and their application to a log event. Does not own: the logging pipeline. Pure.

Invariants: no PEM private key, compact JWS, Vault token or unshortened join token comes out of `redact`, however deep
it lay; what comes out holds no control characters, so that no peer can write to an operator's terminal.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

HIDDEN: Final = "[hidden]"
MAX_TEXT = 8192
_MAX_DEPTH = 6
_MAX_ITEMS = 200

_SECRET_NAMES: Final = frozenset({"key", "token", "jwt", "pem", "pin", "pkcs8", "credentials", "cookie", "dsn"})
_SECRET_ENDINGS: Final = (
    "secret",
    "password",
    "passphrase",
    "authorization",
    "private_key",
    "_key_der",
    "_key_pem",
    "_token",
    "_jwt",
    "_cookie",
    "_svid_key",
)

_PEM_KEY: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
# RFC 7515 7.1: a JOSE header always begins with `{"`, which is `eyJ` in base64url (or `eyA`, `ewo` with white space).
# Begun only where a run of its characters begins, and a dot ends that: a text full of `eyJ` would cost its square.
_COMPACT_JWS: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]++\.[A-Za-z0-9_-]{2})([A-Za-z0-9_-]*?)\b(?:eyJ|eyA|ewo)[A-Za-z0-9_-]{8,}+"
    r"\.[A-Za-z0-9_-]{2,}+(?:\.[A-Za-z0-9_-]*+)?"
)
_VAULT_TOKEN: Final = re.compile(r"\bhv[sbr]\.[A-Za-z0-9_-]{16,}|\bs\.[A-Za-z0-9]{24}\b")
# The agent's ID is the join token until that is spent.
_JOIN_TOKEN: Final = re.compile(r"(join_token/[A-Za-z0-9._-]{4})[A-Za-z0-9._-]+")
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# Most texts hold none of it. Whatever a pattern above can match holds one of these in some case, or is not printable.
_HINTS: Final = ("private key-----", "eyj", "eya", "ewo", "s.", "hvb.", "hvr.", "join_token/", "bearer", "basic")


def redact(event: Mapping[str, object]) -> dict[str, object]:
    """The event without its secrets; field order is kept."""
    texts = " ".join([value for value in event.values() if isinstance(value, str)])
    can_stay = (str, int, float) if len(texts) <= MAX_TEXT and _is_plain(texts) else ()
    return {
        name: HIDDEN if is_secret_name(name) else value if isinstance(value, can_stay) else _clean(value, _MAX_DEPTH)
        for name, value in event.items()
    }


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether a field of this name is hidden whatever it holds."""
    lowered = name.lower().replace("-", "_")
    return lowered in _SECRET_NAMES or lowered.endswith(_SECRET_ENDINGS)


def redact_text(text: str) -> str:
    """The text with everything that looks like a secret taken out, cut to `MAX_TEXT` characters."""
    # Cut before it is searched, or a long text would hold up the loop; and at a space, so that no secret is halved.
    looked_at = text if len(text) <= 2 * MAX_TEXT else text[: 2 * MAX_TEXT].rsplit(None, 1)[0]
    if not _is_plain(looked_at):
        looked_at = _without_secrets(looked_at)
    if len(text) <= MAX_TEXT:
        return looked_at
    return f"{looked_at[:MAX_TEXT]}\u2026 ({len(text)} characters)"


def _is_plain(text: str) -> bool:
    folded = text.casefold()
    return text.isprintable() and not any(hint in folded for hint in _HINTS)


def _without_secrets(text: str) -> str:
    text = _PEM_KEY.sub("[hidden private key]", text)
    text = _COMPACT_JWS.sub(r"\1[hidden token]", text)
    text = _VAULT_TOKEN.sub("[hidden token]", text)
    text = _BEARER.sub(r"\1 [hidden]", text)
    text = _JOIN_TOKEN.sub("\\1\u2026", text)
    return _CONTROL.sub("\ufffd", text)


def _clean(value: object, depth: int) -> object:
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _clean_items(value, depth - 1) if depth else "\u2026"
    return redact_text(str(value))


def _clean_items(value: Mapping[object, object] | Collection[object], depth: int) -> object:
    if isinstance(value, Mapping):
        shown = itertools.islice(value.items(), _MAX_ITEMS)
        return {redact_text(str(k)): HIDDEN if is_secret_name(str(k)) else _clean(v, depth) for k, v in shown}
    return [_clean(item, depth) for item in itertools.islice(value, _MAX_ITEMS)]
