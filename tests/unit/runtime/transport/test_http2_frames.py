"""GOAWAY is put between two frames, whole, once, and nowhere else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livery.runtime.transport.http2_frames import GOAWAY, FrameCursor

SETTINGS, HEADERS, CONTINUATION, DATA = 4, 1, 9, 0
END_HEADERS = 4


def frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + (1).to_bytes(4, "big") + payload


def frames_of(stream: bytes) -> list[bytes]:
    """The frames of a byte stream, told apart by their lengths alone."""
    found = []
    while stream:
        size = 9 + int.from_bytes(stream[:3], "big")
        found.append(stream[:size])
        stream = stream[size:]
    return found


FIRST = frame(SETTINGS, bytes(6))
REPLY = frame(HEADERS, os.urandom(40), END_HEADERS) + frame(DATA, os.urandom(300)) + frame(HEADERS, b"x", END_HEADERS)


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 50, 1000])
def test_without_a_request_the_stream_passes_unchanged(size):
    cursor, stream = FrameCursor(), FIRST + REPLY
    assert b"".join(cursor.pass_through(stream[i : i + size]) for i in range(0, len(stream), size)) == stream


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(0, 40))
def test_goaway_stands_between_frames_however_the_stream_is_cut(sizes, asked_at):
    stream = FIRST + REPLY * 3
    cursor, out, position = FrameCursor(), b"", 0
    for number, size in enumerate([*sizes, len(stream)]):
        if number == min(asked_at, len(sizes)):
            cursor.request_goaway()
            out += cursor.pass_through(b"")
        out += cursor.pass_through(stream[position : position + size])
        position += size
    frames = frames_of(out)
    assert frames.count(GOAWAY) <= 1
    frames = [each for each in frames if each != GOAWAY]
    assert frames == frames_of(stream)


def test_at_rest_goaway_goes_out_at_once_and_only_once():
    cursor = FrameCursor()
    cursor.pass_through(FIRST + REPLY)
    cursor.request_goaway()
    assert cursor.pass_through(b"") == GOAWAY
    assert cursor.pass_through(REPLY) == REPLY


def test_settings_come_first():
    cursor = FrameCursor()
    cursor.request_goaway()
    assert cursor.pass_through(b"") == b""
    assert cursor.pass_through(FIRST) == FIRST + GOAWAY


def test_a_header_block_is_not_interrupted():
    cursor = FrameCursor()
    cursor.pass_through(FIRST)
    begun, rest = frame(HEADERS, b"half"), frame(CONTINUATION, b"rest", END_HEADERS)
    cursor.pass_through(begun)
    cursor.request_goaway()
    assert cursor.pass_through(b"") == b""
    assert cursor.pass_through(rest) == rest + GOAWAY


def test_in_the_middle_of_a_frame_it_waits_for_the_end():
    cursor = FrameCursor()
    cursor.pass_through(FIRST)
    data = frame(DATA, bytes(100))
    cursor.pass_through(data[:50])
    cursor.request_goaway()
    assert cursor.pass_through(data[50:] + data) == data[50:] + GOAWAY + data


def test_the_frame_says_that_every_call_under_way_is_served():
    assert GOAWAY[3] == 7
    assert int.from_bytes(GOAWAY[:3], "big") == len(GOAWAY) - 9
    assert int.from_bytes(GOAWAY[9:13], "big") == 2**31 - 1
    assert int.from_bytes(GOAWAY[13:17], "big") == 0
