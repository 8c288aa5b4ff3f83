"""Reading a call's context: names that are known, each with a value of its own type.

Owns: the shapes of the three contexts (the same as in `schema.cedarschema`, which a test holds them to) and `read`,
which checks a value against one. Does not own: what the values mean together (`model.calls`).

Invariants: what `read` returns holds only text, integers of 64 bits, lists of text and records of those, so nothing of
it can turn into an entity or an extension value inside Cedar: the keys `__entity`, `__extn` and `__expr` are refused at
any depth, under unknown names too. Unknown names are dropped, and named to the caller. A known name whose value has
another type, null and fractions included, is `BadContext`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from livery_policy.model.vocabulary import Vocabulary

_ESCAPES = frozenset({"__entity", "__extn", "__expr"})
_INT64 = range(-(2**63), 2**63)
_MAX_DROPPED = 20  # names that are reported; the rest is counted
_MAX_NAME = 80
_HOST = re.compile(r"[a-z0-9._~-]*|\[[0-9a-f:.]+\]")

Read = Callable[[object, str], object]
Known = Mapping[str, "Known | None"]  # the names a record can have; None where what is under one is no record


class BadContext(ValueError):
    """A known name holds a value it must not have; the text names it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A record: its known names, and which of them must be there."""

    known: Mapping[str, Read | Shape]
    required: frozenset[str] = frozenset()


def text(value: object, where: str) -> str:
    """A string that UTF-8 can carry."""
    if not isinstance(value, str):
        raise BadContext(f"{where} must be a string, and is {_type(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadContext(f"{where} holds half a surrogate pair") from None
    return value


def integer(value: object, where: str) -> int:
    """A whole number of 64 bits; `True` is none."""
    if type(value) is not int:
        raise BadContext(f"{where} must be a whole number, and is {_type(value)}")
    if value not in _INT64:
        raise BadContext(f"{where} does not fit in 64 bits")
    return value


def port(value: object, where: str) -> int:
    """A TCP port."""
    if not 0 < (number := integer(value, where)) < 65536:
        raise BadContext(f"{where} is no port number")
    return number


def texts(value: object, where: str) -> list[str]:
    """A list of strings: Cedar's `Set<String>`."""
    if not isinstance(value, list):
        raise BadContext(f"{where} must be a list of strings, and is {_type(value)}")
    return [text(v, where) for v in value]


def text_or_texts(value: object, where: str) -> list[str]:
    """A string, or a list of them (RFC 7519 4.1.3: `aud` may be either); as a list."""
    return [text(value, where)] if isinstance(value, str) else texts(value, where)


def host(value: object, where: str) -> str:
    """A host without its port, in lower case and without the final dot (RFC 9110 4.2.3: equal names), an IPv6 address
    as RFC 5952 writes it.
    """
    name = text(value, where).lower().removesuffix(".")
    if not _HOST.fullmatch(name):
        raise BadContext(f"{where} is no host name (write the port apart)")
    if not name.startswith("["):
        return name
    try:
        return f"[{ipaddress.IPv6Address(name[1:-1])}]"
    except ValueError:
        raise BadContext(f"{where} is no IPv6 address") from None


def shapes(vocabulary: Vocabulary) -> Mapping[str, Shape]:
    """The context of each family of actions, as an enforcement point may send it: without `peer` and `now`."""
    headers = Shape(dict.fromkeys(vocabulary.headers, texts))
    known_claims: dict[str, Read | Shape] = {"iss": text, "sub": text, "aud": text_or_texts}
    claims = Shape(known_claims | dict.fromkeys(vocabulary.claims, text_or_texts), frozenset(known_claims))
    http = Shape(
        {"method": text, "path": text, "host": host, "port": port, "query": text, "headers": headers},
        frozenset({"path"}),
    )
    grpc = Shape({"service": text, "method": text, "path": text, "headers": headers}, frozenset({"path"}))
    return {
        "http": Shape({"http": http, "jwt": claims}, frozenset({"http"})),
        "grpc": Shape({"grpc": grpc, "jwt": claims}, frozenset({"grpc"})),
        "connect": Shape({"port": port, "sni": host}, frozenset({"port"})),
    }


def family_of(action: str) -> str:
    """The family of actions (a key of `shapes`) whose context an action or a group of actions has."""
    return action.partition(":")[0]


def known_attributes(vocabulary: Vocabulary, families: Collection[str] | None = None) -> Known:
    """Every attribute that a principal, a resource or the context of these families (None: of all) can have."""
    context: dict[str, Known | None] = {"peer": {"verified": None, "ip": None}, "now": None}
    for family, shape in shapes(vocabulary).items():
        if families is None or family in families:
            context |= _names(shape)
    service: Known = {"trust_domain": None, "path": None}
    return {"principal": {**service, "segments": None, "selectors": None}, "resource": service, "context": context}


def _names(shape: Shape) -> dict[str, Known | None]:
    return {name: _names(below) if isinstance(below, Shape) else None for name, below in shape.known.items()}


def read(value: object, shape: Shape, dropped: list[str], where: str = "context") -> dict[str, object]:
    """The known part of a record; the names of the rest are added to `dropped`."""
    if not isinstance(value, (dict, Mapping)):
        raise BadContext(f"{where} must be an object, and is {_type(value)}")
    found: dict[str, object] = {}
    for name, item in value.items():
        if name in _ESCAPES:
            raise BadContext(f"{where} holds the reserved name {name!r}")
        reader = shape.known.get(name)
        if reader is None:
            _refuse_escapes(item, f"{where}.{_short(name)}")
            _drop(dropped, f"{where}.{_short(name)}")
        elif isinstance(reader, Shape):
            found[name] = read(item, reader, dropped, f"{where}.{name}")
        else:
            found[name] = reader(item, f"{where}.{name}")
    for name in shape.required:
        if name not in found:
            raise BadContext(f"{where}.{name} is missing")
    return found


def _refuse_escapes(value: object, where: str) -> None:
    """Walk an unknown value without recursion: its depth is the sender's choice."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            if clash := _ESCAPES & item.keys():
                raise BadContext(f"{where} holds the reserved name {min(clash)!r}")
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _drop(dropped: list[str], name: str) -> None:
    if len(dropped) < _MAX_DROPPED:
        dropped.append(name)
    elif len(dropped) == _MAX_DROPPED:
        dropped.append("…")


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME and name.isprintable() else ascii(name[:_MAX_NAME])


def _type(value: object) -> str:
    if value is None:
        return "null"
    return _TYPES.get(type(value), f"a {type(value).__name__}")


_TYPES: Mapping[type, str] = MappingProxyType(
    {bool: "a boolean", float: "a fraction", dict: "an object", list: "a list", str: "a string", int: "a number"}
)
