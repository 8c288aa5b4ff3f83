"""docs/policy.md says what is true: its policies load, its answers are the answers, its tables are complete."""

from __future__ import annotations

import ast
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from livery.runtime.metrics import Metrics
from livery.runtime.quantities import format_duration, format_size
from livery_policy import cedar
from livery_policy.bundles.keeper import PolicyDirectory, PolicyKeeper
from livery_policy.config import PolicyConfig
from livery_policy.decisions.log import DecisionLog
from livery_policy.decisions.point import DecisionPoint
from livery_policy.engine.compiling import compile_policies
from livery_policy.engine.source import PolicyFile
from livery_policy.explanation import _REASONS
from livery_policy.model.context import known_attributes
from livery_policy.model.decision import Reason
from livery_policy.model.vocabulary import Vocabulary
from livery_policy.offline import Wish, can
from tests.fakes.clock import FakeClock
from tests.policies import AT

ROOT = Path(__file__).parents[3]
DOC = (ROOT / "docs" / "policy.md").read_text("utf-8")
FENCES = re.findall(r"^```(\w+)?(?: ([^\n]*))?\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
CEDAR = [(options, text) for kind, options, text in FENCES if kind == "cedar"]
CAN = [(options, text) for kind, options, text in FENCES if kind == "can"]
SIZES = {"max_body"}


def section(title: str) -> str:
    return re.split(r"\n##+ ", DOC.split(f"# {title}\n")[1])[0]


def first_cells(title: str) -> set[str]:
    """The names in backquotes in the first column of a section's table."""
    rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def vocabulary(options: str) -> Vocabulary:
    found = dict(re.findall(r"(\w+)=(\S+)", options))
    return Vocabulary(*(tuple(found[name].split(",")) if name in found else () for name in ("headers", "claims")))


@pytest.mark.parametrize(("options", "text"), CEDAR)
def test_every_policy_in_the_document_loads_without_a_finding(options: str, text: str) -> None:
    assert compile_policies([PolicyFile("demo", "demo.cedar", text)], vocabulary(options)).warnings == ()


@pytest.mark.parametrize(("options", "text"), CAN)
def test_every_answer_in_the_document_is_the_answer(tmp_path: Path, options: str, text: str) -> None:
    (tmp_path / "demo.cedar").write_text(CEDAR[0][1])
    principal, action, resource, context = options.split(" ", 3)
    told: Any = can(Wish(principal, action, resource, json.loads(context)), tmp_path, AT)
    assert told["explanation"][:-1] == text.splitlines()


def test_the_question_for_curl_is_one_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "demo.cedar").write_text(CEDAR[0][1])
    shell = next(text for kind, _, text in FENCES if kind == "sh")
    asked = json.loads(shell.split("--data '")[1].rstrip().removesuffix("'"))
    wish = Wish(asked["subject"]["id"], asked["action"]["name"], asked["resource"]["id"], asked["context"])
    assert can(wish, tmp_path, AT)["outcome"] == "allow"


def test_the_snippet_of_python_names_what_exists() -> None:
    snippet = next(text for kind, _, text in FENCES if kind == "python")
    names: dict[str, Any] = {"app": object()}
    exec(compile(snippet, "docs/policy.md", "exec"), names)
    assert type(names["app"]).__name__ == "AuthorizationMiddleware"


def test_every_action_stands_with_its_groups() -> None:
    groups = cedar.action_groups(cedar.schema(Vocabulary().schema_text()))
    listed: dict[str, set[str]] = {}
    for line in section("Actions").splitlines():
        if line.startswith("| `"):
            cells = line.split("|")
            for action in re.findall(r"`([^`]+)`", cells[1]):
                listed[action] = set(re.findall(r"`([^`]+)`", cells[3]))
    grouping = {group for above in groups.values() for group in above}
    assert listed == {action: set(above) for action, above in groups.items() if action not in grouping}


def test_every_attribute_is_listed() -> None:
    text = section("What conditions can read")
    known: Any = known_attributes(Vocabulary())
    for root in ("principal", "resource"):
        assert all(f"`{root}.{name}`" in text for name in known[root])
    for name, below in known["context"].items():
        assert f"context.{name}" in text
        assert all(f".{inner}`" in text for inner in below or ())


def test_every_code_of_a_finding_is_listed() -> None:
    """The codes are the texts of that shape which the checks report."""
    reported: set[str] = set()
    for file in ("compiling.py", "faults.py", "lint.py"):
        for node in ast.walk(ast.parse((ROOT / "policy" / "livery_policy" / "engine" / file).read_text())):
            if isinstance(node, ast.Call | ast.Tuple | ast.IfExp):
                children = ast.iter_child_nodes(node)
                reported |= {c.value for c in children if isinstance(c, ast.Constant) and _is_code(c.value)}
    assert reported == first_cells("Checking")


def _is_code(value: object) -> bool:
    return isinstance(value, str) and bool(
        re.fullmatch(r"[a-z]+-[a-z]+|syntax|template|schema|unsupported|empty", value)
    )


def test_every_class_of_reasons_is_listed_and_has_words() -> None:
    assert first_cells("Reasons") == {str(reason) for reason in Reason} == set(_REASONS)


def test_every_route_of_the_server_is_listed() -> None:
    admin = (ROOT / "policy" / "livery_policy" / "doors" / "admin.py").read_text()
    routes = {re.sub(r"/\{\w+\}", "/ID", path) for path in re.findall(r'add_api_route\("([^"]+)"', admin)}
    listed = {path for cell in first_cells("The server's doors") for path in re.findall(r"/\S+", cell)}
    assert routes | {"/access/v1/evaluation", "/access/v1/evaluations", "/.well-known/authzen-configuration"} == listed


def test_every_metric_of_decisions_and_policies_is_listed(tmp_path: Path) -> None:
    clock, metrics = FakeClock(AT), Metrics()
    point = DecisionPoint(clock, DecisionLog(None), metrics)
    PolicyKeeper(PolicyDirectory(tmp_path, Vocabulary()), point, clock, metrics)
    names = set(re.findall(r"^# HELP (livery_\w+) ", metrics.render().decode(), re.MULTILINE))
    listed = {cell.partition("{")[0] for cell in first_cells("The server's doors") if cell.startswith("livery_")}
    assert listed == {name for name in names if not name.endswith("_created")}


def test_every_setting_is_documented_with_its_default() -> None:
    rows = {
        line.split("|")[1].strip(): line.split("|")[2].strip()
        for line in section("Settings").splitlines()
        if "|" in line
    }
    fields = PolicyConfig.model_fields
    assert set(rows) - {"Setting", "---"} == {f"`{name}`" for name in fields}
    for name, field in fields.items():
        if field.default_factory is None:
            assert rows[f"`{name}`"] == shown(name, field.default), name


def shown(name: str, default: Any) -> str:
    match default:
        case None | ():
            return ""
        case timedelta():
            return f"`{format_duration(default)}`"
        case int() if name.endswith("_mode"):
            return f"`{default:#o}`"
        case _:
            return f"`{format_size(default) if name in SIZES else default}`"


def test_no_row_of_authzen_is_missing_from_the_conformance_document() -> None:
    text = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    assert re.findall(r"^\| AZ-(\d+) \|", text, re.MULTILINE) == [str(n) for n in range(1, 15)]
