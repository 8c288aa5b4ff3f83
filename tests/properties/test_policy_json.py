"""Strict JSON agrees with a slow and obvious reader on what is one object without duplicate names."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from livery_policy.doors.strict_json import MAX_DEPTH, Malformed, read_object

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


class Twice(ValueError):
    """A name that was there twice."""


def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(found)) != len(found):
        raise Twice
    return dict(found)


def obvious(data: bytes) -> dict[str, Any] | None:
    """What Python's own reader makes of it, with a hook for duplicates; None if it is not to be taken."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@given(st.dictionaries(st.text(max_size=5), values, max_size=5))
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    for ascii_only in (True, False):
        assert read_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


members = st.lists(st.tuples(st.sampled_from(["a", "b", "\\u0061", 'q\\"', ":"]), st.integers(0, 3)), max_size=4)
objects = st.recursive(
    members.map(lambda found: "{" + ",".join(f'"{name}":{value}' for name, value in found) + "}"),
    lambda inner: st.lists(st.tuples(st.sampled_from(["a", "c", "{"]), inner), max_size=3).map(
        lambda found: "{" + ",".join(f'"{name}": [{value}]' for name, value in found) + "}"
    ),
    max_leaves=8,
)


@settings(max_examples=400)
@given(objects)
def test_a_name_that_is_there_twice_is_found_at_every_depth(text: str) -> None:
    data = text.encode()
    try:
        assert read_object(data) == obvious(data)
    except Malformed:
        assert obvious(data) is None


@settings(max_examples=400)
@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,\\a1 ', max_size=30).map(str.encode))
def test_bytes_of_any_kind_are_an_object_or_malformed(data: bytes) -> None:
    try:
        found = read_object(data)
    except Malformed:
        return
    assert obvious(data) == found


@given(st.integers(1, 80))
def test_the_depth_is_bounded_exactly(depth: int) -> None:
    data = b'{"a":' * depth + b"1" + b"}" * depth
    try:
        read_object(data)
        assert depth <= MAX_DEPTH
    except Malformed:
        assert depth > MAX_DEPTH


def test_a_text_of_quotes_costs_its_length_and_not_its_square() -> None:
    """A pattern that can fail at each quote would take minutes for this."""
    for text in (b'"' * 200_001, b'{"' + b'\\"' * 100_000, b'"\\' * 100_000, b'{"a":"' + b"\\" * 199_999):
        try:
            read_object(text)
        except Malformed:
            continue
        raise AssertionError("taken for an object")
