"""HTTP/2 by hand, as much as it takes to be a gRPC client that no gRPC library would be: slow, mute or split in two."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4


@dataclass(frozen=True)
class Frame:
    """One frame, as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        return self.stream == 1 and self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame's bytes (RFC 9113 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def grpc_call(method: str, metadata: Mapping[str, str], message: bytes = b"", window: int = 65535) -> bytes:
    """Everything a client sends for one call on a new connection; `window` is how much of the answer it will take."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **metadata,
    }
    # RFC 7541 6.2.2: literals without indexing, no Huffman.
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    return b"".join(
        (
            PREFACE,
            frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW_SIZE, window)),
            frame(HEADERS, END_HEADERS, 1, block),
            frame(DATA, END_STREAM, 1, body),
        )
    )


def frames(connection: socket.socket) -> Iterator[Frame]:
    """The frames that come in, until the connection ends. Blocks; give the socket a time-out."""
    with connection.makefile("rb") as file:
        while len(head := file.read(9)) == 9:
            length = int.from_bytes(head[:3], "big")
            yield Frame(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, file.read(length))


def answer(connection: socket.socket) -> bytes:
    """The DATA of the one call, up to the end of its stream or of the connection."""
    data = []
    for each in frames(connection):
        if each.kind == DATA and each.stream == 1:
            data.append(each.payload)
        if each.ends_stream:
            break
    return b"".join(data)
