"""What Cedar's validator says of one policy, as it is told to its author: each fault once, and with what to do.

Owns: joining what differs by the action alone, leaving out what follows from another fault, and the advice. Does not
own: the validation (`cedar`), or our own rules (`lint`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from livery_policy.model.entities import ACTION, PATH_PREFIX, SERVICE, TRUST_DOMAIN, WORKLOAD

_OF_ACTION = re.compile(r'(.* in context) for (\w+::Action::"[^"]*")(.*)', re.DOTALL)
_NO_ACTION = "unable to find an applicable action given the policy scope constraints"
_UNRECOGNIZED = "unrecognized "
_UNSAFE = "unable to guarantee safety of access to optional attribute"
_UNGUARDED = re.compile(_UNSAFE + r' `([\w.]*?)(?:\.?(\w+)|\[("[^`]*")\])` in context')
_UNKNOWN_ACTION = re.compile(r'unrecognized action `(?:\w+::)*Action::"([^"]*)"`')
_TYPES = {name.rpartition("::")[2]: name for name in (WORKLOAD, SERVICE, PATH_PREFIX, TRUST_DOMAIN)}
_HEADS = {"http": f'action in {ACTION}::"http"', "grpc": f'action == {ACTION}::"grpc"'}
_CONNECT = f'action == {ACTION}::"connect"'
_CONFIGURED = "of the server's configuration (--config)"


def _guard(found: re.Match[str]) -> str:
    record = ".".join(filter(None, ("context", found[1])))
    return f"write `{record} has {found[2] or found[3]} &&` before it"


def _type_meant(found: re.Match[str]) -> str:
    known = _TYPES.get(found[1])
    return f"did you mean {known}?" if known else f"there are {', '.join(_TYPES.values())}"


_ADVICE: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = (
    (_UNGUARDED, _guard),
    (re.compile(r"unrecognized entity type `(?:\w+::)*(\w+)`"), _type_meant),
    (
        re.compile(r"attribute `(?:http|grpc)\.headers[.\[].* not found"),
        lambda _: f"list the header in `headers` {_CONFIGURED}",
    ),
    (re.compile(r"attribute `jwt[.\[].* not found"), lambda _: f"list the claim in `claims` {_CONFIGURED}"),
    (
        re.compile(r"attribute `(http|grpc|port|sni)` in context .*not found"),
        lambda found: f"say which calls it is for: {_HEADS.get(found[1], _CONNECT)}",
    ),
)


def told(messages: Sequence[str], actions: Collection[str]) -> Iterator[tuple[str, str]]:
    """Code and text of each fault; `actions` are the schema's actions and their groups."""
    unknown = any(message.startswith(_UNRECOGNIZED) for message in messages)
    for message in _joined(messages):
        if message == _NO_ACTION and unknown:
            continue  # of course there is none
        advice = _advice(message, actions)
        code = "unguarded-attribute" if message.startswith(_UNSAFE) else "schema"
        yield code, f"{message}; {advice}" if advice else message


def _joined(messages: Sequence[str]) -> Iterator[str]:
    """Messages that are one but for the action they are about, as one that names the first and counts the others."""
    about: dict[tuple[str, ...], list[str]] = {}
    for message in sorted(messages):  # they come in any order
        found = _OF_ACTION.fullmatch(message)
        about.setdefault((found[1], found[3]) if found else (message,), []).append(found[2] if found else "")
    for parts, named in about.items():
        if len(parts) == 1:
            yield parts[0]
        else:
            more = f" and {len(named) - 1} more" if len(named) > 1 else ""
            yield f"{parts[0]} for {named[0]}{more}{parts[1]}"


def _advice(message: str, actions: Collection[str]) -> str:
    for form, advice in _ADVICE:
        if found := form.match(message):
            return advice(found)
    if found := _UNKNOWN_ACTION.match(message):
        return _meant(found[1], actions)
    return f"a {WORKLOAD} calls, and a {SERVICE} is called" if message == _NO_ACTION else ""


def _meant(name: str, actions: Collection[str]) -> str:
    known = [each for each in (name, f"http:{name}") if each in actions]
    near = known or difflib.get_close_matches(name, sorted(actions), n=1, cutoff=0.6)
    return f'did you mean {ACTION}::"{near[0]}"?' if near else ""
