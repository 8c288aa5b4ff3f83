"""Durations and sizes carry their unit."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livery.runtime.quantities import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("1h", 3600), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("7d", 604800), ("0s", 0)]
)
def test_a_duration_means_what_it_says(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "60", "1 h", "h", "-5s", "1.5h", "30m1h", "1h\n", "１h", "1H", "1y", "1h1h", "9" * 40 + "s", "400000000d"],
)
def test_what_is_not_a_duration_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="duration") as raised:
        parse_duration(text)
    assert text not in str(raised.value) or len(text) < 3


@pytest.mark.parametrize(("text", "size"), [("10MiB", 10 << 20), ("64 KiB", 65536), ("1kB", 1000), ("0B", 0)])
def test_a_size_means_what_it_says(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10", "MiB", "-1B", "1.5MiB", "10mib", "10MiB\n", "1KB", "9" * 30 + "B"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**13))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    if duration < timedelta(days=36000):
        assert parse_duration(format_duration(duration)) == duration


@given(st.integers(min_value=0, max_value=10**14))
def test_a_written_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            parse(text)
