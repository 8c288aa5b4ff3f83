"""A path is in one normal form or it is refused; nothing is repaired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livery_policy.model.paths import MAX_PATH, NotNormal, normal_path

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "policy_paths.json").read_text("utf-8"))


@pytest.mark.parametrize("path", VECTORS["normal"])
def test_a_path_in_normal_form_passes_unchanged(path: str) -> None:
    assert normal_path(path) == path


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda c: ascii(c["path"]))
def test_a_path_that_is_not_in_normal_form_is_refused_by_the_rule_it_breaks(case: dict[str, str]) -> None:
    with pytest.raises(NotNormal) as refused:
        normal_path(case["path"])
    assert case["why"] in str(refused.value)


def test_a_path_longer_than_the_bound_is_refused() -> None:
    assert normal_path("/" + "a" * (MAX_PATH - 1))
    with pytest.raises(NotNormal, match="longer"):
        normal_path("/" + "a" * MAX_PATH)
