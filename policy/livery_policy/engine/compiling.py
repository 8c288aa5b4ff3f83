"""From policy text to what the engine decides by, checking everything that can be checked before the first call.

Owns: `compile_policies`, `CompiledPolicy`, `CompiledSet` and the version's digest. Does not own: reading files
(`bundles`), deciding.

Invariants: a `CompiledSet` holds only policies that parse, fit the schema and have a unique id `<file stem>/<@id>`; one
error anywhere and there is none. Its digest covers the schema and every byte of every file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from livery_policy import cedar
from livery_policy.cedar import pst
from livery_policy.engine import clauses, faults, lint, source
from livery_policy.engine.source import PolicyFile, Statement
from livery_policy.errors import InvalidPolicies
from livery_policy.findings import Finding, Severity
from livery_policy.model.context import Known, family_of, known_attributes
from livery_policy.model.decision import PolicyVersion
from livery_policy.model.entities import ACTION
from livery_policy.model.vocabulary import Vocabulary

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_SHOWN = 200  # characters of a condition in a reason


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One policy: its text and place, where it applies, what of the context it reads, and its form for Cedar."""

    id: str
    effect: pst.Effect
    where: str  # file:line
    text: str
    principal: clauses.Key
    actions: tuple[clauses.Key, ...]
    resource: clauses.Key
    paths: frozenset[clauses.Path]
    conditions: tuple[pst.Clause, ...]
    condition_texts: tuple[str, ...]  # each as its author wrote it
    json_text: str


@dataclass(frozen=True, slots=True)
class CompiledSet:
    """All policies of one version, by id, with the schema they were checked against."""

    policies: tuple[CompiledPolicy, ...]  # sorted by id
    version: PolicyVersion
    schema: cedar.Schema
    action_groups: Mapping[str, frozenset[str]]
    warnings: tuple[Finding, ...]


def compile_policies(files: Iterable[PolicyFile], vocabulary: Vocabulary) -> CompiledSet:
    """Compile a whole set, or raise `InvalidPolicies` with every finding."""
    given = sorted(files, key=lambda f: f.name)
    schema_text = vocabulary.schema_text()
    compiler = _Compiler(cedar.schema(schema_text), vocabulary)
    policies = sorted(compiler.compile(given), key=lambda p: p.id)
    findings = tuple(sorted(compiler.findings))
    if any(f.is_error for f in findings):
        raise InvalidPolicies(findings)
    return CompiledSet(tuple(policies), _version(schema_text, given), compiler.schema, compiler.action_groups, findings)


def _version(schema_text: str, files: Sequence[PolicyFile]) -> PolicyVersion:
    """The digest of the set: each part with its length before it, so that no two sets run together to one text."""
    digest = hashlib.sha256()
    for part in (schema_text, *(text for f in files for text in (f.stem, f.text))):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return PolicyVersion(f"sha256:{digest.hexdigest()}")


class _Compiler:
    """One run over a set: collects policies and findings."""

    def __init__(self, schema: cedar.Schema, vocabulary: Vocabulary) -> None:
        self.schema = schema
        self.action_groups = cedar.action_groups(schema)
        self._actions = frozenset(self.action_groups).union(*self.action_groups.values())
        self._vocabulary = vocabulary
        self._known: dict[frozenset[str], Known] = {}
        self.findings: list[Finding] = []
        self._taken: dict[str, str] = {}  # policy id → where

    def compile(self, files: Sequence[PolicyFile]) -> list[CompiledPolicy]:
        found = [p for f in files for p in self._file(f)]
        for n in lint.over_budget([(p.principal, p.resource) for p in found]):
            self._global(found[n])
        return found

    def _file(self, file: PolicyFile) -> Iterator[CompiledPolicy]:
        if not _ID.fullmatch(file.stem):
            self._find(Finding(file.name, 0, "file-name", f"the file's name, {file.stem!a}, cannot begin an id"))
            return
        found = source.statements(file.text)
        if not found:
            self._find(Finding(file.name, 0, "empty", "the file holds no policy", Severity.WARNING))
        for statement in found:
            if policy := self._statement(file, statement):
                yield policy

    def _statement(self, file: PolicyFile, statement: Statement) -> CompiledPolicy | None:
        """One policy, checked in this order: (1) syntax, (2) no template, (3) id, (4) schema, (5) our own rules."""
        place = _Place(file, statement.line, self._find)
        try:  # 1
            template = _parsed(statement)
        except ValueError as e:
            place.error("syntax", str(e))
            return None
        if template is None:  # 2
            place.error("template", "a template grants nothing here: write the entity in place of the ?slot")
            return None
        policy_id = self._id(place, template)  # 3
        if policy_id is None:
            return None
        errors = cedar.validation_errors(statement.text, self.schema)  # 4
        for code, message in faults.told(errors, self._actions):
            place.error(code, message, policy_id)
        if errors:
            return None
        try:  # 5
            for code, message, severity in lint.of_policy(template, self._known_to(template)):
                place.say(code, message, policy_id, severity)
            return _compiled(policy_id, place.where, statement.text, template)
        except ValueError as e:
            place.error("unsupported", str(e), policy_id)
            return None

    def _known_to(self, template: pst.Template) -> Known:
        """The attributes that a call by one of the policy's actions can have."""
        keys = set(clauses.action_keys(template.action))
        families = frozenset(
            family_of(action)
            for action, groups in self.action_groups.items()
            if keys.intersection(clauses.keys_of(ACTION, action, ((ACTION, group) for group in groups)))
        )
        if families not in self._known:
            self._known[families] = known_attributes(self._vocabulary, families)
        return self._known[families]

    def _id(self, place: _Place, template: pst.Template) -> str | None:
        written = template.annotations.get("id")
        policy_id = f"{place.file.stem}/{written}"
        if written is None:
            place.error("missing-id", 'every policy needs an id: write @id("…") before it')
        elif not _ID.fullmatch(written):
            place.error("bad-id", f"{written!a} is no id: letters, digits, '.', '-' and '_', at most 128")
        elif other := self._taken.get(policy_id):
            place.error("duplicate-id", f"this id is taken by {other}", policy_id)
        else:
            self._taken[policy_id] = place.where
            return policy_id
        return None

    def _global(self, policy: CompiledPolicy) -> None:
        name, _, line = policy.where.rpartition(":")
        message = (
            f"more than {lint.GLOBAL_BUDGET} policies name neither principal nor resource; each costs on every call"
        )
        self._find(Finding(name, int(line), "global-budget", message, Severity.WARNING, policy.id))

    def _find(self, finding: Finding) -> None:
        self.findings.append(finding)


class _Place:
    """A statement's place in a file, and the way to report on it."""

    def __init__(self, file: PolicyFile, line: int, report: Callable[[Finding], None]) -> None:
        self.file = file
        self.line = line
        self.where = f"{file.name}:{line}"
        self._report = report

    def say(self, code: str, message: str, policy: str | None, severity: Severity) -> None:
        self._report(Finding(self.file.name, self.line, code, message, severity, policy))

    def error(self, code: str, message: str, policy: str | None = None) -> None:
        self.say(code, message, policy, Severity.ERROR)


def _parsed(statement: Statement) -> pst.Template | None:
    """The policy's tree; None if it is a template."""
    if not statement.ended:
        raise ValueError("the policy does not end: a ';' is missing, or a string is not closed")
    if source.depth(statement.text) > source.MAX_DEPTH:
        raise ValueError(f"the policy is nested deeper than {source.MAX_DEPTH} levels: write several")
    nodes = cedar.PolicySet.from_str(statement.text).to_pst()
    if nodes.templates:
        return None
    (template,) = nodes.static_policies.values()
    return template


def _compiled(policy_id: str, where: str, text: str, template: pst.Template) -> CompiledPolicy:
    conditions = clauses.conditions(template)
    return CompiledPolicy(
        id=policy_id,
        effect=template.effect,
        where=where,
        text=text,
        principal=clauses.scope_key(template.principal),
        actions=clauses.action_keys(template.action),
        resource=clauses.scope_key(template.resource),
        paths=clauses.context_paths(template),
        conditions=conditions,
        condition_texts=tuple(_condition_texts(text, template, conditions)),
        json_text=_json_text(text),
    )


def _json_text(text: str) -> str:
    (body,) = json.loads(cedar.policies_to_json(text))["staticPolicies"].values()
    return json.dumps(body, separators=(",", ":"))


def _condition_texts(text: str, template: pst.Template, conditions: Sequence[pst.Clause]) -> list[str]:
    """Each condition as it is written; as Cedar prints it where parentheses keep the parts from being told apart."""
    written: list[str] = []
    for clause, inside in zip(template.clauses, source.conditions(text), strict=True):
        if isinstance(clause, pst.When):
            written.extend(source.conjuncts(inside))
        else:
            written.append(f"unless {{ {' '.join(inside.split())} }}")
    if len(written) != len(conditions):
        written = [_printed(condition) for condition in conditions]
    return [shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…" for shown in written]


def _printed(condition: pst.Clause) -> str:
    anywhere = pst.ScopeAny()
    policy = pst.Template("x", "permit", anywhere, anywhere, anywhere, (condition,), {})
    _, _, body = str(cedar.policies_from_nodes({"x": policy})).partition(") ")
    return " ".join(body.removeprefix("when {").rstrip().removesuffix(";").removesuffix("}").split())
