"""Selectors: one text form, and nothing in them that could forge a log line or fail on the wire."""

from __future__ import annotations

import pytest

from livery.identity import InvalidSelector, Selector


def test_the_first_colon_ends_the_type() -> None:
    selector = Selector.parse("unix:uid:1000")
    assert (selector.type, selector.value) == ("unix", "uid:1000")
    assert str(selector) == "unix:uid:1000"


@pytest.mark.parametrize("text", ["", ":", "unix", "unix:", ":uid:1000"])
def test_a_selector_has_a_type_and_a_value(text: str) -> None:
    with pytest.raises(InvalidSelector):
        Selector.parse(text)


def test_a_type_with_a_colon_would_read_back_as_another_selector() -> None:
    with pytest.raises(InvalidSelector, match="colon"):
        Selector("unix:uid", "1000")


@pytest.mark.parametrize(
    "value",
    [
        "a\nb",
        "a\0",
        "a\x7f",
        "a\x1b[31m",
        "caf\udce9",
        "\ud800",
        "\udfff",
        "\x1f",
        "a\x9b31m",
        "\x80",
        "\x9f",
        "a\u2028b",
    ],
)
def test_control_characters_and_broken_unicode_are_refused(value: str) -> None:
    with pytest.raises(InvalidSelector, match="control character"):
        Selector("unix", value)
    with pytest.raises(InvalidSelector, match="control character"):
        Selector(value, "uid:1000")


def test_spaces_and_other_scripts_are_ordinary_text() -> None:
    assert Selector.parse("unix:path:/opt/Ünïts/a b\ud7ff\ue000").value == "path:/opt/Ünïts/a b\ud7ff\ue000"


def test_a_value_is_at_most_as_long_as_a_path_can_be() -> None:
    assert Selector("unix", "x" * 4096)
    assert Selector("u" * 255, "ä" * 2048)
    for kind, value in [("unix", "x" * 4097), ("unix", "ä" * 2049), ("u" * 256, "x")]:
        with pytest.raises(InvalidSelector, match="longer"):
            Selector(kind, value)


def test_selectors_compare_by_value_and_sort() -> None:
    assert Selector.parse("unix:uid:1") == Selector("unix", "uid:1")
    assert min(Selector("b", "a"), Selector("a", "z")).type == "a"
