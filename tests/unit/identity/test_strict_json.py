"""The one way JSON enters: what two readers could take differently, or a later one could choke on, is refused."""

from __future__ import annotations

import sys
import time

import pytest

from livery.identity.strict_json import MAX_DEPTH, NotJson, dump, parse


def refused(data: bytes | str, *, max_bytes: int = 1_000_000) -> str:
    with pytest.raises(NotJson) as caught:
        parse(data, max_bytes=max_bytes)
    return str(caught.value)


def test_ordinary_json_is_read_from_bytes_and_text_and_reads_back() -> None:
    value = {"a": [1, -2.5, True, None, "ä\n\U0001f600"], "": {}}
    assert parse(dump(value), max_bytes=1000) == value
    assert parse(dump(value).decode(), max_bytes=1000) == value
    assert parse('"\\ud83d\\ude00"', max_bytes=100) == "\U0001f600"


def test_half_a_surrogate_pair_is_refused_wherever_it_stands() -> None:
    for data in [b'"\\ud800"', b'{"a":["\\udc00"]}', b'{"\\udfff":1}', b'"\\ude00\\ud83d"']:
        assert "surrogates" in refused(data)


def test_a_name_that_stands_twice_is_refused_and_told() -> None:
    assert "'b' appears twice" in refused(b'{"a":1,"b":2,"b":2}')
    assert "'a' appears twice" in refused(b'[{"x":{"a":1,"\\u0061":2}}]')


def test_a_name_that_stands_twice_among_very_many_is_found_in_time() -> None:
    """To count each name among all of them would take half a minute here, and hours in the largest bundle."""
    names = ",".join(f'"{n:x}":0' for n in range(40_000))
    began = time.perf_counter()
    assert "'9c3f' appears twice" in refused(f'{{{names},"9c3f":0}}')
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_whole_number_that_is_infinite_to_a_reader_of_doubles_is_refused(sign: str) -> None:
    largest = int(sys.float_info.max)
    assert parse(f"{sign}{largest}", max_bytes=1000) == int(f"{sign}{largest}")
    for digits in [f"1{'0' * 309}", f"{largest + 10**300}", "1" * 4000, "1" * 5000]:
        assert "more than a number can be" in refused(sign + digits)


def test_nesting_is_bounded_by_depth_and_not_by_width() -> None:
    assert MAX_DEPTH == 32, "as ADR 1 says"
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse(deepest, max_bytes=1000)
    assert parse('{"a":' * (MAX_DEPTH - 1) + "{}" + "}" * (MAX_DEPTH - 1), max_bytes=1000)
    assert "nested" in refused(f"[{deepest}]")
    assert "nested" in refused('{"a":' * MAX_DEPTH + "{}" + "}" * MAX_DEPTH)
    assert "nested" in refused("[" * 100_000)
    assert len(parse("[" + "[]," * 10_000 + "[]]", max_bytes=1_000_000)) == 10_001


def test_size_is_bounded_in_bytes() -> None:
    assert parse(b'"aa"', max_bytes=4) == "aa"
    assert "more than 3 bytes" in refused(b'"aa"', max_bytes=3)


@pytest.mark.parametrize(
    "data",
    [
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"",
        b" ",
        b"1 2",
        b"{'a':1}",
        b"\xff",
        b"1" * 5000,
        b"1e999",
        b"[-1e400]",
    ],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    refused(data)
