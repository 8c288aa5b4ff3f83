"""DER by hand."""

from __future__ import annotations

import pytest

from livery_ca.certificates import encoding


@pytest.mark.parametrize(
    ("size", "header"), [(0, "0300"), (127, "037f"), (128, "038180"), (255, "0381ff"), (256, "03820100")]
)
def test_a_value_is_der_whatever_its_length(size: int, header: str) -> None:
    """X.690 8.1.3: a length has a byte of its own up to 127, and is counted from 128 on."""
    assert encoding.value(encoding.BIT_STRING, b"x" * size) == bytes.fromhex(header) + b"x" * size


def test_bits_are_of_whole_bytes() -> None:
    """X.690 8.6.2.2."""
    assert encoding.bits(b"\xff") == bytes.fromhex("030200ff")
