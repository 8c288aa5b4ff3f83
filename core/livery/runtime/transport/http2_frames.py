"""Just enough of HTTP/2's framing to ask a client, in passing, for its next calls on a new connection.

Owns: finding the end of a frame in a server's byte stream, and the GOAWAY frame put there. Does not own: HTTP/2; the
bytes are otherwise passed on as they are.

Invariant: GOAWAY goes between two frames, after the server's SETTINGS and never inside of a header block.
"""

from __future__ import annotations

import struct

_HEADER = 9  # RFC 9113 4.1
_HEADERS, _PUSH_PROMISE, _GOAWAY, _CONTINUATION = 0x1, 0x5, 0x7, 0x9
_END_HEADERS = 0x4
_NO_ERROR = 0
# RFC 9113 6.8: with the highest stream number, calls under way and calls already sent are all still served.
_EVERY_STREAM = 2**31 - 1
_WHY = b"identity_ends_soon"
GOAWAY = struct.pack(">HBBBLLL", 0, 8 + len(_WHY), _GOAWAY, 0, 0, _EVERY_STREAM, _NO_ERROR) + _WHY


class FrameCursor:
    """Follows a server's frames."""

    __slots__ = ("_header", "_in_block", "_left", "_passed", "_wanted")

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._passed = False  # at least one frame
        self._in_block = False
        self._wanted = False

    def request_goaway(self) -> None:
        """Put a GOAWAY between the next two frames."""
        self._wanted = True

    def pass_through(self, data: bytes) -> bytes:
        """Return what to send for `data`: the same, or with the GOAWAY in its place."""
        if not self._wanted:
            self._skip(data)
            return data
        place = self._next_boundary(data)
        if place is None:
            return data
        self._wanted = False
        self._skip(data[place:])
        return data[:place] + GOAWAY + data[place:]

    @property
    def _is_between_frames(self) -> bool:
        return self._passed and not self._header and not self._left and not self._in_block

    def _skip(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            position += self._step(data, position)

    def _next_boundary(self, data: bytes) -> int | None:
        position = 0
        while not self._is_between_frames:
            if position == len(data):
                return None
            position += self._step(data, position)
        return position

    def _step(self, data: bytes, position: int) -> int:
        """Go on to the end of a header or a payload, or of `data`; return by how many bytes."""
        if self._left:
            taken = min(self._left, len(data) - position)
            self._left -= taken
            return taken
        taken = min(_HEADER - len(self._header), len(data) - position)
        self._header += data[position : position + taken]
        if len(self._header) == _HEADER:
            self._begin_frame(self._header[3], self._header[4])
        return taken

    def _begin_frame(self, kind: int, flags: int) -> None:
        self._left = int.from_bytes(self._header[:3])
        self._header.clear()
        self._passed = True
        if kind in {_HEADERS, _PUSH_PROMISE, _CONTINUATION}:
            self._in_block = not flags & _END_HEADERS
