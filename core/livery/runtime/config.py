"""What a role was told: a TOML file, overridden by the environment, as one frozen and fully checked value.

One file may serve several roles: each reads its own table, so `[ca] x509_svid_ttl = "1h"` and
`LIVERY_CA__X509_SVID_TTL=1h` say the same, and the variable wins. Variables of nested tables go on with `__`; arrays in
variables are written as in TOML.

Owns: finding, merging and checking values, and remembering where each came from. Does not own: which settings exist;
each role has a model of its own, derived from `Section`.

Invariants: an unknown key, table or `LIVERY_*` variable is refused, with the nearest known one suggested; every error
names its file and line or its variable; no error repeats a value, for it may be a secret.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from livery.errors import Kind, LiveryError
from livery.runtime.quantities import Duration, Size
from livery.runtime.toml_lines import key_lines

__all__ = ["ROLES", "ConfigError", "Duration", "Problem", "Section", "Setting", "Size", "effective", "load"]

ROLES: Final = ("ca", "agent", "policy")
# Variables that belong to no role: read by the command line, or by every program of ours.
OTHER_VARIABLES: Final = (
    "LIVERY_CONFIG",
    "LIVERY_CA_SOCKET",
    "LIVERY_AGENT_SOCKET",
    "LIVERY_POLICY_SOCKET",
    "LIVERY_TRACEBACK",
)
_PREFIX: Final = "LIVERY_"
_MAX_BYTES: Final = 1024 * 1024

Key = tuple[str | int, ...]
M = TypeVar("M", bound="Section")


class Section(BaseModel):
    """A table of settings: frozen, closed, and each setting documented by the text below it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Refuse a setting without documentation when the class is made, not when somebody looks for it."""
        bare = [name for name, field in cls.model_fields.items() if not field.description]
        if bare:
            raise TypeError(f"{cls.__name__}: settings without documentation: {', '.join(bare)}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: `where` (file:line or variable), `what`, and `fix` if there is an obvious one."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.fix})" if self.fix else "")


class ConfigError(LiveryError):
    """The configuration cannot be used; `problems` lists everything wrong with it, in the order of the file."""

    code: ClassVar[str] = "config_invalid"
    kind: ClassVar[Kind] = Kind.INVALID

    def __init__(self, role: str, problems: Sequence[Problem]) -> None:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        fixes = "; ".join(dict.fromkeys(problem.fix for problem in problems if problem.fix))
        super().__init__(
            f"{count} in the configuration of {role}",
            why="; ".join(f"{problem.where}: {problem.what}" for problem in problems),
            fix=fixes or "correct this and start again",
        )
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is in force: its dotted name, its value as text (hidden if secret) and where it came from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class _Found:
    """Values before they are checked, and the place of each by its key."""

    values: dict[str, Any]
    places: dict[Key, str]

    def place(self, key: Key) -> str | None:
        """Where the longest known part of `key` stands."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return None

    def source(self, key: Key) -> str:
        """Where the value of `key` stands; what its table does not say is a default, wherever the table is."""
        within: object = self.values
        for part in map(str, key):
            if not isinstance(within, dict):
                break
            if part not in within:
                return "default"
            within = within[part]
        return self.place(key) or "default"


def load(model: type[M], role: str, path: Path | None, environ: Mapping[str, str]) -> M:
    """The configuration of `role`, or `ConfigError` with everything that is wrong with it."""
    return _load(model, role, path, environ)[0]


def effective(model: type[M], role: str, path: Path | None, environ: Mapping[str, str]) -> tuple[Setting, ...]:
    """Each setting of `role` with its value and the file and line, variable or default that it came from."""
    loaded, found = _load(model, role, path, environ)
    dumped = loaded.model_dump(mode="json")
    return tuple(
        Setting(".".join(map(str, key)), _shown(value, key), found.source(key)) for key, value in _leaves(dumped, ())
    )


def _load(model: type[M], role: str, path: Path | None, environ: Mapping[str, str]) -> tuple[M, _Found]:
    found, problems = _read_file(role, path)
    problems += _overlay(found, model, role, environ)
    try:
        loaded = model.model_validate(found.values)
    except ValidationError as cause:
        told = [_explain(error, found, model, role, path) for error in cause.errors(include_url=False)]
        raise ConfigError(role, [*problems, *told]) from None  # the cause's text may hold what a validator was given
    if problems:
        raise ConfigError(role, problems)
    return loaded, found


def _read_file(role: str, path: Path | None) -> tuple[_Found, list[Problem]]:
    if path is None:
        return _Found({}, {}), []
    text = _text_of(role, path)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as cause:  # the former also for a number with too many digits
        raise ConfigError(role, [_syntax_problem(path, str(cause))]) from None
    lines = key_lines(text)
    problems = [
        Problem(f"{path}:{lines.get((name,), 1)}", f"unknown table {name!r}", _suggest(name, ROLES, "the roles are"))
        for name in document
        if name not in ROLES
    ]
    table = document.get(role, {})
    if not isinstance(table, dict):
        problems.append(Problem(f"{path}:{lines.get((role,), 1)}", f"{role!r} must be a table: [{role}]"))
        table = {}
    places = {key[1:]: f"{path}:{line}" for key, line in lines.items() if key[0] == role and len(key) > 1}
    return _Found(table, places), problems


def _text_of(role: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as cause:
        why = cause.strerror or "cannot be read"
        raise ConfigError(
            role, [Problem(str(path), f"cannot be read: {why}", "check --config or LIVERY_CONFIG")]
        ) from cause
    if len(data) > _MAX_BYTES:
        raise ConfigError(role, [Problem(str(path), f"is longer than {_MAX_BYTES} bytes")])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as cause:
        line = data[: cause.start].count(b"\n") + 1
        raise ConfigError(role, [Problem(f"{path}:{line}", "is not UTF-8")]) from None


def _syntax_problem(path: Path, message: str) -> Problem:
    at = re.search(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$", message)
    if at is None:
        return Problem(f"{path}:1", "is not TOML")
    line = f":{at[1]}" if at[1] else ""
    return Problem(f"{path}{line}", f"is not TOML: {message[: at.start()].lower()}")


def _overlay(found: _Found, model: type[Section], role: str, environ: Mapping[str, str]) -> list[Problem]:
    """Put the role's variables over the file's values; returns what is wrong with their names."""
    problems: list[Problem] = []
    mine = f"{_PREFIX}{role.upper()}__"
    known = {mine + "__".join(key).upper(): key for key in _field_keys(model)}
    for name in sorted(environ):
        if name in known:
            _set(found, known[name], name, _typed(model, known[name], environ[name]))
        elif name.startswith(mine):
            problems.append(Problem(name, "unknown variable", _suggest(name, list(known), "")))
        elif name.startswith(_PREFIX) and not _is_known_elsewhere(name):
            candidates = [*OTHER_VARIABLES, *known]
            problems.append(Problem(name, "unknown variable", _suggest(name, candidates, "")))
    return problems


def _is_known_elsewhere(name: str) -> bool:
    return name in OTHER_VARIABLES or any(name.startswith(f"{_PREFIX}{role.upper()}__") for role in ROLES)


def _set(found: _Found, key: tuple[str, ...], variable: str, value: object) -> None:
    table = found.values
    for part in key[:-1]:
        below = table.get(part)
        if not isinstance(below, dict):
            below = table[part] = {}
        table = below
    table[key[-1]] = value
    for known in [known for known in found.places if known[: len(key)] == key]:
        del found.places[known]
    found.places[key] = variable


def _typed(model: type[Section], key: tuple[str, ...], text: str) -> object:
    """A variable's text; where an array or a table is wanted, what it means in TOML."""
    if not _wants_container(_annotation(model, key)):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text  # the model refuses it and says what it wanted


def _sections(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _sections(argument)


def _field_keys(model: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        for section in _sections(field.annotation):
            yield from _field_keys(section, (*above, name))


def _annotation(model: type[Section], key: Sequence[str]) -> object:
    candidates: list[type[Section]] = [model]
    annotation: object = None
    for part in key:
        annotation = next(m.model_fields[part].annotation for m in candidates if part in m.model_fields)
        candidates = list(_sections(annotation))
    return annotation


def _wants_container(annotation: object) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, Annotated):
        return any(_wants_container(argument) for argument in get_args(annotation))
    plain = origin or annotation
    if not isinstance(plain, type):
        return False
    return issubclass(plain, (Sequence, Mapping, frozenset, set, BaseModel)) and not issubclass(plain, (str, bytes))


def _explain(error: ErrorDetails, found: _Found, model: type[Section], role: str, path: Path | None) -> Problem:
    key = error["loc"]
    name = ".".join(str(part) for part in key)
    place = found.place(key)
    if error["type"] == "missing":
        variable = f"{_PREFIX}{role.upper()}__{'__'.join(str(part) for part in key).upper()}"
        where = place or str(path or "no configuration file")
        return Problem(where, f"{name!r} is required", f"set {name} under [{role}], or {variable}")
    if error["type"] == "extra_forbidden":
        known = [".".join(k) for k in _field_keys(model) if len(k) == len(key)]
        return Problem(place or role, f"unknown key {name!r}", _suggest(name, known, "known keys are"))
    message = error["msg"].removeprefix("Value error, ")
    if not key:  # a rule about several settings
        return Problem(place or str(path or "no configuration file"), f"[{role}]: {message}")
    return Problem(place or f"the default of {name}", f"{name!r}: {message[:1].lower()}{message[1:]}")


def _suggest(name: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"{otherwise} {', '.join(known[:12])}" if otherwise and known else ""


def _leaves(value: object, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict) and (value or not key):
        for name, below in value.items():
            yield from _leaves(below, (*key, name))
    else:
        yield key, value


def _shown(value: object, key: Key = ()) -> str:
    match value:
        case None:
            return "not set"
        case "":
            return '""'
        case bool():
            return str(value).lower()
        case int() if key and str(key[-1]).endswith("_mode"):
            return f"{value:#o}"  # as TOML can write it, and as everybody reads it
        case list():
            return "[" + ", ".join(_shown(item) for item in value) + "]"
        case _:
            return str(value)
