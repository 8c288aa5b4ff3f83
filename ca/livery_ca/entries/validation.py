"""What makes a registration entry valid, rule by rule and in SPIRE's words.

Owns: the rules that follow from an entry's own values, and the warnings for selectors that prove little or that no
process has. Does not own: reading the wire's form (`doors.messages.entry_form`), or rules that need other rows
(`store.entries`).

Invariant: pure; every refusal is an `InvalidEntry` whose text clients of SPIRE's API already know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

from livery.errors import Kind, LiveryError
from livery.identity import Selector

MAX_ENTRY_ID = 255
MAX_HINT = 1024
MAX_TTL = 2**31 - 1  # seconds: the wire's int32

_ENTRY_ID = re.compile(r"[A-Za-z0-9._-]*")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")  # an underscore as SPIRE: containers' names have it
_MAX_DNS_NAME = 253  # RFC 1035 2.3.4, without the root's dot
_SHAREABLE_KINDS = ("path:", "sha256:")
_NUMBER, _NAME = ("a number", re.compile(r"0|[1-9][0-9]*")), ("a name", re.compile(r".+", re.DOTALL))
# What an agent, SPIRE's or ours, says of a process on Linux: kind → what its value is.
_UNIX_KINDS = {
    "uid": _NUMBER,
    "gid": _NUMBER,
    "supplementary_gid": _NUMBER,
    "user": _NAME,
    "group": _NAME,
    "supplementary_group": _NAME,
    "path": ("an absolute path", re.compile(r"/.*", re.DOTALL)),
    "sha256": ("64 lower-case hexadecimal digits", re.compile(r"[0-9a-f]{64}")),
}


class InvalidEntry(LiveryError):
    """The entry can never be stored as it is."""

    code: ClassVar[str] = "invalid_entry"
    kind: ClassVar[Kind] = Kind.INVALID


def check_hint(hint: str) -> None:
    """Refuse a hint over 1024 characters."""
    if len(hint) > MAX_HINT:
        raise InvalidEntry(f"hint is too long, max length is {MAX_HINT} characters")


def check_entry_id(entry_id: str) -> None:
    """Refuse an id that is too long or not of `[A-Za-z0-9._-]`; an empty one is made up by the store."""
    if len(entry_id) > MAX_ENTRY_ID:
        raise InvalidEntry("invalid registration entry: entry ID too long")
    if not _ENTRY_ID.fullmatch(entry_id):
        raise InvalidEntry("invalid registration entry: entry ID contains invalid characters")


def check_ttl(seconds: int, field: str) -> None:
    """Refuse a negative lifetime; zero means the authority's default."""
    if not 0 <= seconds <= MAX_TTL:
        raise InvalidEntry(f"invalid registration entry: {field} is not set")


def check_stored_svid(selectors: Sequence[Selector], *, no_prefetch: bool) -> None:
    """Refuse what a `store_svid` entry may not combine: selectors of several types, or a cache hint."""
    if no_prefetch:
        raise InvalidEntry("specifying cache behaviour is incompatible with storable SVIDs")
    if len({each.type for each in selectors}) > 1:
        raise InvalidEntry("invalid registration entry: selector types must be the same when store SVID is enabled")


def check_dns_name(name: str) -> None:
    """Refuse what is no DNS name: labels of letters, digits, hyphens and underscores, the first a wildcard at most."""
    if why := _dns_fault(name):
        raise InvalidEntry("invalid DNS name", why=why)


def check_wildcards(names: Iterable[str]) -> None:
    """Refuse a list in which a wildcard covers another name of the list."""
    known = set(names)
    for name in sorted(known):
        parent = name.partition(".")[2]
        if not name.startswith("*") and f"*.{parent}" in known:
            raise InvalidEntry(
                f'name "{name}" overlaps with an existing wildcard name in the list', why="wildcard overlap"
            )


class TypeAndValue(Protocol):
    """A selector, read or still a message."""

    @property
    def type(self) -> str:
        """What comes before the first colon."""
        ...

    @property
    def value(self) -> str:
        """What comes after it."""
        ...


def weak_selectors(selectors: Iterable[TypeAndValue]) -> str:
    """Why these selectors prove little, or nothing when they do not.

    A process that forks and then execs the trusted program is attested as that program while its child reads the SVID.
    So a path or a hash alone names a file that anybody who may run it can borrow; it wants a uid or the like beside it.
    """
    held = tuple(selectors)
    borrowed = [each for each in held if each.type == "unix" and each.value.startswith(_SHAREABLE_KINDS)]
    if not held or len(borrowed) < len(held):
        return ""
    return "unix:path and unix:sha256 alone admit whoever may run that file; add unix:uid or unix:gid"


def unfound_selectors(selectors: Iterable[TypeAndValue]) -> str:
    """Why no process will ever be found to have all of these, or nothing where one may.

    Only `unix` is judged: other types are other attestors' business, and an agent may have any.
    """
    return next((why for each in selectors if (why := _unfound(each))), "")


def _unfound(selector: TypeAndValue) -> str:
    if selector.type in _UNIX_KINDS:
        return f"no agent finds selectors of type {selector.type}; write unix:{selector.type}:..."
    if selector.type != "unix":
        return ""
    kind, _, value = selector.value.partition(":")
    if kind not in _UNIX_KINDS:
        return f"no process has such a unix selector; there are {', '.join(_UNIX_KINDS)}"
    what, form = _UNIX_KINDS[kind]
    return "" if form.fullmatch(value) else f"no process has such a unix:{kind}; it is {what}"


def _dns_fault(name: str) -> str:
    bare = name.removeprefix("*.")
    faults = (
        (not name.isascii(), "name must be ascii"),
        (name.count("*") > 1, "too many wildcards"),
        ("*" in bare, "wildcard must be first label"),
        (not bare.strip(), "empty or only whitespace"),
        (bare.endswith("."), "domain ends with dot"),
        (len(name) > _MAX_DNS_NAME or not all(map(_is_label, bare.split("."))), "idna error"),
    )
    return next((why for wrong, why in faults if wrong), "")


def _is_label(label: str) -> bool:
    # RFC 5891 4.2.3.1: two hyphens in places three and four are reserved, and only A-labels use them.
    reserved = label[2:4] == "--" and not label.lower().startswith("xn--")
    return _LABEL.fullmatch(label) is not None and not reserved
