"""Asking policies without a server: `livery policy check` and `livery can --policies DIR`.

Owns: both as functions that return plain data. Does not own: output or exit codes (the CLI), and nothing a server does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from livery_policy.bundles.directory import read_directory, read_file
from livery_policy.decisions.record import DecisionRecord
from livery_policy.engine.compiling import compile_policies
from livery_policy.engine.decide import Engine
from livery_policy.engine.source import PolicyFile
from livery_policy.errors import InvalidPolicies
from livery_policy.explanation import sentences
from livery_policy.findings import Finding, Severity
from livery_policy.model.calls import Call, Peer
from livery_policy.model.decision import Decision
from livery_policy.model.vocabulary import Vocabulary

_PLAIN = Vocabulary()


def check(paths: Sequence[Path], vocabulary: Vocabulary = _PLAIN) -> tuple[Finding, ...]:
    """Every finding in these files and directories, taken together as one set, by paths as they were given. Raises
    `UnreadablePolicies`.

    No finding with `is_error` means that a server would load the set.
    """
    files: list[PolicyFile] = []
    bare: list[Finding] = []
    for path in paths:
        found = (
            [replace(file, name=str(path / file.name)) for file in _files([path])] if path.is_dir() else _files([path])
        )
        files += found
        if not found:
            bare.append(Finding(str(path), 0, "empty", "the directory holds no *.cedar file", Severity.WARNING))
    try:
        return (*bare, *compile_policies(files, vocabulary).warnings)
    except InvalidPolicies as e:
        return (*bare, *e.findings)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody would like to do, in AuthZEN's words."""

    principal: str
    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)

    def call(self) -> tuple[Call, dict[str, object]]:
        """The call, and what was assumed to complete it: without a path, an HTTP call is to `/`."""
        action = self.action
        if action in {"grpc", "connect"} or (isinstance(http := self.context.get("http", {}), dict) and "path" in http):
            return Call(self.principal, action, self.resource, self.context, Peer(verified=True)), {}
        assumed = {"http": {"path": "/", **http}} if isinstance(http, dict) else {"http": http}
        context = {**self.context, **assumed}
        return Call(self.principal, action, self.resource, context, Peer(verified=True)), {"http.path": "/"}


def can(wish: Wish, policies: Path, at: datetime, vocabulary: Vocabulary = _PLAIN) -> dict[str, object]:
    """Whether the policies of a directory (or file) would allow it, as plain data with the reasons.

    Raises `InvalidPolicies` or `UnreadablePolicies`.
    """
    engine = Engine(compile_policies(_files([policies]), vocabulary), vocabulary)
    call, assumed = wish.call()
    made = engine.judge(call, at)
    decision = Decision(
        id="",
        reason=made.reason,
        version=made.version,
        policies=made.policies,
        detail=made.detail,
        nearest=made.nearest,
        errors=made.errors,
        dropped=made.dropped,
    )
    return told(DecisionRecord(decision, call, "offline", at), assumed)


def told(record: DecisionRecord, assumed: Mapping[str, object] | None = None) -> dict[str, object]:
    """A record as plain data, with its explanation in words under `explanation`."""
    found = record.as_dict()
    if assumed:
        found["assumed"] = dict(assumed)
    found["explanation"] = sentences(found)
    return found


def _files(paths: Iterable[Path]) -> list[PolicyFile]:
    found: list[PolicyFile] = []
    for path in paths:
        found.extend(read_directory(path) if path.is_dir() else [read_file(path)])
    return found
