"""docs/conformance.md is true: every test it names exists, and every row is shown by a test that carries its number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "conformance.md"
ROW = re.compile(r"^\| ([A-Z0-9]+-\d+) \|", re.MULTILINE)
NAME = re.compile(r"`(test_\w+)`")
SECTIONS = {"ID": 10, "X509": 15, "JWT": 11, "TDB": 9, "WL": 19, "WE": 8}  # rows each of our sections has


def existing_tests() -> set[str]:
    """The names of all test functions, wherever they are."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, functions) and node.name.startswith("test_")
    }


def rows() -> dict[str, list[str]]:
    """Each row's number, and the tests it names."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if ROW.match(line)]
    numbers = [ROW.match(line)[1] for line in lines]  # type: ignore[index]  # they match, see above
    assert len(set(numbers)) == len(numbers), "a number stands twice"
    return {number: NAME.findall(line) for number, line in zip(numbers, lines, strict=True)}


def test_every_test_the_document_names_exists() -> None:
    named = set(NAME.findall(DOCUMENT.read_text()))
    assert named
    assert named - existing_tests() == set()


def test_every_row_is_shown_by_a_test_that_carries_its_number() -> None:
    for number, tests in rows().items():
        mark = re.compile(rf"(^|_){number.replace('-', '_')}(_|$)")
        assert any(mark.search(name) for name in tests), f"{number} names no test of its own"


def test_no_row_of_the_identity_standards_is_missing() -> None:
    expected = {f"{section}-{n}" for section, count in SECTIONS.items() for n in range(1, count + 1)}
    assert expected <= rows().keys()


def test_the_decisions_the_document_points_to_are_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text()):
        assert (DOCUMENT.parent / link).is_file(), link
