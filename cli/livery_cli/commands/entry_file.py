"""Entries as a file: read it, hold it against what the CA has, and carry the difference out.

Owns: the TOML form (`[[entry]]` with the option names of `livery entry create`) and the plan. An entry of the file and
one of the CA are the same when SPIFFE ID, parent and selectors are equal: the CA's own rule for "similar".
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import click

from livery.errors import Kind, LiveryError
from livery.wire import entry_api, types_api
from livery_cli.peers.client import tell_warnings
from livery_cli.peers.wire_text import entry_row, id_from_wire, id_to_wire, selectors_from_wire, selectors_to_wire
from livery_cli.plain_text import one_line
from livery_cli.terminal.options import TTL
from livery_cli.terminal.output import Shown

_KNOWN = {
    "spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "jwt_svid_ttl",
    "dns_names", "federates_with", "hint", "admin", "downstream",
}  # fmt: skip
_SIGNS = {"create": "+", "update": "~", "delete": "-"}
_BATCH = 50
_LONGEST = 16 << 20  # bytes of a file
_SELECTORS = 'write it like ["unix:uid:1000"]; docs/agent.md lists them'

T = TypeVar("T")
R = TypeVar("R")


class InvalidEntryFile(LiveryError):
    """The file does not say what an entry is."""

    code: ClassVar[str] = "invalid_entry_file"
    kind: ClassVar[Kind] = Kind.INVALID


@dataclass(frozen=True, slots=True)
class Plan:
    """What must change for the CA to hold what the file says."""

    create: tuple[types_api.Entry, ...]
    update: tuple[types_api.Entry, ...]
    delete: tuple[types_api.Entry, ...]

    def __bool__(self) -> bool:
        """Whether anything must change."""
        return bool(self.create or self.update or self.delete)

    def shown(self) -> Shown:
        """One line a change for people, one object for programs; named by the identity."""
        rows = [
            {"change": change} | {key: entry_row(entry)[key] for key in ("spiffe_id", "parent_id", "selectors")}
            for change, entry in self._changes()
        ]
        lines = [_line(_SIGNS[change], entry) for change, entry in self._changes()]
        return Shown(rows, [str(row["spiffe_id"]) for row in rows], lambda: "\n".join(lines) or "nothing to change")

    def _changes(self) -> Iterator[tuple[str, types_api.Entry]]:
        for change, entries in (("create", self.create), ("update", self.update), ("delete", self.delete)):
            yield from ((change, entry) for entry in entries)


def _line(sign: str, entry: types_api.Entry) -> str:
    selectors = " ".join(selectors_from_wire(entry.selectors))
    return f"{sign} {id_from_wire(entry.spiffe_id)} via {id_from_wire(entry.parent_id)} for {one_line(selectors)}"


def read(path: Path) -> list[types_api.Entry]:
    """The entries of a file; raises `InvalidEntryFile` with the place of what is wrong."""
    with path.open("rb") as file:
        data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise InvalidEntryFile(f"{path} is too long", why=f"at most {_LONGEST} bytes are read", fix="split it")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEntryFile(f"{path} is not TOML", why=str(error), fix="correct it, and apply it again") from error
    tables = document.get("entry", [])
    if set(document) - {"entry"} or not isinstance(tables, list):
        raise InvalidEntryFile(f"{path} holds something other than [[entry]] tables", fix="write one [[entry]] a table")
    entries = [_entry(table, f"{path}, entry {number}") for number, table in enumerate(tables, 1)]
    if len({_key(entry) for entry in entries}) != len(entries):
        raise InvalidEntryFile(f"{path} holds an entry twice", why="same SPIFFE ID, parent and selectors")
    return entries


def _entry(table: object, where: str) -> types_api.Entry:
    if not isinstance(table, dict):
        raise InvalidEntryFile(f"{where} is not a table")
    unknown = sorted(set(table) - _KNOWN)
    if unknown:
        raise InvalidEntryFile(f"{where}: unknown key {unknown[0]!r}", fix=f"known are {', '.join(sorted(_KNOWN))}")
    missing = sorted({"spiffe_id", "parent_id", "selectors"} - set(table))
    if missing:
        raise InvalidEntryFile(f"{where}: {missing[0]!r} is missing")
    if not table["selectors"]:
        raise InvalidEntryFile(f"{where}: selectors is empty", why="it would describe no process", fix=_SELECTORS)
    entry = types_api.Entry(
        spiffe_id=_read(id_to_wire, _text(table, "spiffe_id", where), where),
        parent_id=_read(id_to_wire, _text(table, "parent_id", where), where),
        selectors=_read(selectors_to_wire, _texts(table, "selectors", where), where),
        dns_names=_texts(table, "dns_names", where),
        federates_with=_texts(table, "federates_with", where),
        hint=_text(table, "hint", where),
        admin=_flag(table, "admin", where),
        downstream=_flag(table, "downstream", where),
    )
    for name in ("x509_svid_ttl", "jwt_svid_ttl"):
        if name in table:
            if not isinstance(table[name], str):
                raise InvalidEntryFile(f"{where}: {name} is not text", fix='write it like "90s", "10m" or "1h30m"')
            setattr(entry, name, _ttl(table[name], f"{where}: {name}"))
    return entry


def _read(reader: Callable[[T], R], value: T, where: str) -> R:
    """What the reader makes of it; its refusal, with the place."""
    try:
        return reader(value)
    except LiveryError as error:
        raise InvalidEntryFile(f"{where}: {error.what}", why=error.why, fix=error.fix) from error


def _ttl(text: str, where: str) -> int:
    try:
        return int(TTL.convert(text, None, None).total_seconds())
    except click.BadParameter as error:
        raise InvalidEntryFile(f"{where} is no lifetime", why=error.message) from error


def _text(table: dict[str, object], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InvalidEntryFile(f"{where}: {key} is not text")
    return value


def _texts(table: dict[str, object], key: str, where: str) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidEntryFile(f"{where}: {key} is not a list of texts")
    return [str(item) for item in value]


def _flag(table: dict[str, object], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InvalidEntryFile(f"{where}: {key} is not true or false")
    return value


def _key(entry: types_api.Entry) -> tuple[str, str, tuple[str, ...]]:
    return id_from_wire(entry.spiffe_id), id_from_wire(entry.parent_id), tuple(selectors_from_wire(entry.selectors))


def plan(wanted: Sequence[types_api.Entry], existing: Sequence[types_api.Entry], *, prune: bool) -> Plan:
    """The changes from `existing` to `wanted`; deletions only under the parents that `wanted` names, and on request."""
    have = {_key(entry): entry for entry in existing}
    want = {_key(entry): entry for entry in wanted}
    update = []
    for key in want.keys() & have.keys():
        want[key].id = have[key].id
        # What a file cannot say stays as it is.
        want[key].expires_at, want[key].store_svid = have[key].expires_at, have[key].store_svid
        if _comparable(want[key]) != _comparable(have[key]):
            update.append(want[key])
    parents = {id_from_wire(entry.parent_id) for entry in wanted}
    delete = [entry for key, entry in have.items() if prune and key not in want and key[1] in parents]
    create = [entry for key, entry in want.items() if key not in have]
    return Plan(tuple(create), tuple(sorted(update, key=_key)), tuple(delete))


def _comparable(entry: types_api.Entry) -> dict[str, object]:
    ignored = {"created_at", "revision"}
    return {key: value for key, value in entry_row(entry).items() if key not in ignored}


def carry_out(
    plan: Plan, stub: entry_api.EntryStub, timeout: float
) -> Iterator[tuple[types_api.Entry, types_api.Status]]:
    """Send the plan in batches; yields each entry with its status, so that a refusal is told by name."""
    for some in _batches(plan.create):
        created, call = stub.BatchCreateEntry.with_call(
            entry_api.BatchCreateEntryRequest(entries=some), timeout=timeout
        )
        tell_warnings(call)
        yield from ((entry, result.status) for entry, result in zip(some, created.results, strict=True))
    for some in _batches(plan.update):
        updated, call = stub.BatchUpdateEntry.with_call(
            entry_api.BatchUpdateEntryRequest(entries=some), timeout=timeout
        )
        tell_warnings(call)
        yield from ((entry, result.status) for entry, result in zip(some, updated.results, strict=True))
    for some in _batches(plan.delete):
        ids = [entry.id for entry in some]
        deleted = stub.BatchDeleteEntry(entry_api.BatchDeleteEntryRequest(ids=ids), timeout=timeout)
        yield from ((entry, result.status) for entry, result in zip(some, deleted.results, strict=True))


def _batches(entries: Sequence[types_api.Entry]) -> Iterator[Sequence[types_api.Entry]]:
    for start in range(0, len(entries), _BATCH):
        yield entries[start : start + _BATCH]
