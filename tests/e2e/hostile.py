"""What a hostile peer sends: garbage, half of a beginning, far too much; to any socket, without credentials.

Owns: the attacks. Each opens its connections, sends, and holds them open until the block ends, so that a test can see
whether others are served meanwhile. That a server closes such a connection, or does not answer, is no failure here.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence

from tests.e2e.curl import curl, grpc_call
from tests.e2e.sockets import TcpSocket, UnixSocket

Door = TcpSocket | UnixSocket
TEN_MEGABYTES = 10 * 1024 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CONNECTIONS = 20  # to each door, for attacks that cost one little
_PATIENCE = 2.0  # seconds to let a server take what is sent


def connect(door: Door) -> socket.socket:
    """A connection; raises OSError if the door takes no more."""
    if isinstance(door, TcpSocket):
        return socket.create_connection((door.host, door.port), timeout=_PATIENCE)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(_PATIENCE)
    made.connect("\0" + door.path[1:] if door.path.startswith("@") else door.path)
    return made


@contextlib.contextmanager
def holding(connections: Iterator[socket.socket]) -> Iterator[int]:
    """Open them all and keep them until the block ends; how many there are."""
    with contextlib.ExitStack() as stack:
        yield sum(1 for connection in connections if stack.enter_context(connection))


def _send(door: Door, data: bytes) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):
        connection = connect(door)
        yield connection
        connection.sendall(data)


def garbage(doors: Sequence[Door]) -> Iterator[socket.socket]:
    """Random bytes; on TCP also behind a finished TLS handshake."""
    noise = random.Random(1)
    for door in doors:
        for _ in range(_CONNECTIONS):
            yield from _send(door, noise.randbytes(4096))
            if isinstance(door, TcpSocket):
                yield from _send_in_tls(door, noise.randbytes(4096))


def _send_in_tls(door: TcpSocket, data: bytes) -> Iterator[socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with contextlib.suppress(OSError):
        connection = context.wrap_socket(connect(door), server_hostname="localhost")
        yield connection
        connection.sendall(data)


def half_a_handshake(doors: Sequence[Door]) -> Iterator[socket.socket]:
    """The first half of a ClientHello, of an HTTP/2 preface, of an HTTP request; and connections that say nothing."""
    beginnings = (_client_hello()[:100], PREFACE[:12], b"POST /access/v1/evaluation HTTP/1.1\r\nhost: loc", b"")
    for door in doors:
        for beginning in beginnings * (_CONNECTIONS // len(beginnings)):
            yield from _send(door, beginning)


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def raw_megabytes(doors: Sequence[Door]) -> Iterator[socket.socket]:
    """Ten megabytes that are no protocol at all, and ten after a correct HTTP/2 preface."""
    for door in doors:
        yield from _send(door, b"\x16\x03\x01" + bytes(TEN_MEGABYTES))
        yield from _send(door, PREFACE + bytes(TEN_MEGABYTES))
        if isinstance(door, TcpSocket):
            yield from _send_in_tls(door, PREFACE + bytes(TEN_MEGABYTES))


def large_requests(doors: Sequence[Door]) -> Iterator[socket.socket]:
    """A request of ten megabytes in the protocol of the door, whichever it is; none may be answered as if it were well.

    Yields nothing: a request is over when it is answered.
    """
    for door in doors:
        if isinstance(door, TcpSocket):
            way, url = ("--insecure",), f"https://{door}"
        elif door.path.startswith("@"):
            way, url = ("--abstract-unix-socket", door.path[1:]), "http://localhost"
        else:
            way, url = ("--unix-socket", door.path), "http://localhost"
        asked = grpc_call("/SpiffeWorkloadAPI/ValidateJWTSVID", *way, url, message=bytes(TEN_MEGABYTES))
        assert asked.grpc_status != 0, f"{door}: {asked.told}"
        path = "/access/v1/evaluation"
        posted = curl(*way, "--header", "content-type: application/json", url + path, data=b" " * TEN_MEGABYTES)
        assert posted.status is None or posted.status >= 400, f"{door}: {posted.told}"
    yield from ()


ATTACKS: dict[str, Callable[[Sequence[Door]], Iterator[socket.socket]]] = {
    "garbage bytes": garbage,
    "half a handshake": half_a_handshake,
    "ten megabytes of nothing": raw_megabytes,
    "requests of ten megabytes": large_requests,
}
