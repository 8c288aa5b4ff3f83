"""docs/ca.md says what is true: every setting with its default, every method with its callers, every limit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest

from livery.runtime.config import Section
from livery.runtime.quantities import format_duration
from livery_ca.config import CaConfig
from livery_ca.doors.guard.limits import LIMITED, LONGEST_WAIT, LimitSettings
from livery_ca.doors.guard.rights import RIGHTS, Class

DOC = (Path(__file__).parents[4] / "docs" / "ca.md").read_text()
ROWS = {
    line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
    for line in DOC.splitlines()
    if line.startswith("|")
}


def settings(model: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name, with its field."""
    for name, field in model.model_fields.items():
        nested = _section(field.annotation)
        if nested is not None:
            yield from settings(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _section(annotation: Any) -> type[Section] | None:
    choices = get_args(annotation) if get_origin(annotation) is Union or "|" in str(annotation) else (annotation,)
    return next((each for each in choices if isinstance(each, type) and issubclass(each, Section)), None)


def shown(default: Any) -> str:
    match default:
        case timedelta():
            return f"`{format_duration(default)}`"
        case bool():
            return f"`{str(default).lower()}`"
        case None | "" | ():
            return ""
        case _:
            return f"`{default}`"


SETTINGS = dict(settings(CaConfig))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_documented_with_its_default(name: str) -> None:
    field = SETTINGS[name]
    assert f"`{name}`" in ROWS, f"docs/ca.md does not name {name}"
    default = ROWS[f"`{name}`"][0]
    if field.is_required():
        assert default == "required"
    elif field.default_factory is None:
        assert default == shown(field.default)


def test_no_setting_is_documented_that_does_not_exist() -> None:
    section = DOC.split("## Settings")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9_.]+)` \|", section, re.MULTILINE)) == set(SETTINGS)


def test_every_method_is_listed_with_who_may_call_it() -> None:
    section = DOC.split("## Who may call what")[1].split("\n## ")[0]
    listed: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)
    for service, methods, callers in re.findall(r"^\| (\w+) \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE):
        listed[service, frozenset(callers.strip().split(", "))] |= set(methods.strip().split(", "))
    expected: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)
    for method, classes in RIGHTS.items():
        _, service, name = method.split("/")
        expected[
            service.rpartition(".")[2], frozenset(str(each.name).lower() for each in Class if each in classes)
        ].add(name)
    listed.pop(("Service", frozenset({"Callers"})), None)
    assert listed == expected


def test_every_limit_is_listed_with_its_number_and_methods() -> None:
    section = DOC.split("## Limits")[1].split("\n## ")[0]
    limits = LimitSettings()
    for name in set(LIMITED.values()):
        methods = {method.rpartition("/")[2] for method, limit in LIMITED.items() if limit == name}
        row = next(line for line in section.splitlines() if line.startswith(f"| `{name}` |"))
        _, _, number, named, _ = row.split("|")
        assert int(number) == limits.rate(name)
        assert set(named.strip().split(", ")) == methods
    assert f"{LONGEST_WAIT:.0f} s" in section
