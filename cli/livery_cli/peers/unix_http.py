"""One HTTP request over a unix socket, for client commands: the standard library, so that nothing heavy is loaded.

Owns: the connection and its failures in our words. Does not own: what is asked or what an answer means.
"""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

from livery_cli.peers.client import (
    BadRequest,
    NotReady,
    Peer,
    PeerFailed,
    Refused,
    Unreachable,
    check_socket,
    socket_path,
)

_LONGEST_ANSWER = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status and the parsed JSON body."""

    status: int
    body: object


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(peer: Peer, method: str, path: str, body: object = None, *, timeout: timedelta) -> Answer:
    """One request; raises `BadRequest` (no unix socket), `Unreachable`, `Refused` (401, 403),
    `NotReady` (503) or `PeerFailed` (other 5xx, no JSON).
    """
    path_of_socket = socket_path(peer.address)
    if path_of_socket is None:
        raise BadRequest(f"{peer.address!r} is no unix socket", fix="write it like unix:/run/livery/agent/admin.sock")
    check_socket(peer)
    connection = _UnixConnection(str(path_of_socket), timeout.total_seconds())
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"} if data else {})
        response = connection.getresponse()
        text = _whole(response)
    except PermissionError as error:
        raise Refused(
            f"may not open {peer.address}", why="its mode admits other users only", fix="run as its owner, or as root"
        ) from error
    except (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionResetError) as error:
        raise Unreachable(
            f"{peer.name} did not answer at {peer.address}",
            why="it closed the connection before the end of its answer, as when it stops",
            fix=f"see that it runs ({peer.start_with}), and run this again",
        ) from error
    except http.client.HTTPException as error:
        # Its text holds what came, which may be anything.
        raise Unreachable(
            f"{peer.name} is not at {peer.address}",
            why=f"what answers there does not speak HTTP ({type(error).__name__})",
            fix=f"name the socket of {peer.name}: `livery up` prints it",
        ) from error
    except OSError as error:
        raise Unreachable(
            f"{peer.name} did not answer at {peer.address}",
            why=str(error) or type(error).__name__,
            fix=f"see that it runs ({peer.start_with})",
        ) from error
    finally:
        connection.close()
    return _judged(peer, response.status, text)


def _whole(response: http.client.HTTPResponse) -> bytes:
    """The body. Whatever answers us says how long it is, so that one that was cut off is not taken for an answer."""
    if response.length is None and not response.chunked:
        raise http.client.IncompleteRead(b"")
    text = response.read(_LONGEST_ANSWER)
    if response.length and len(text) < _LONGEST_ANSWER:
        raise http.client.IncompleteRead(text, response.length)
    return text


def _judged(peer: Peer, status: int, text: bytes) -> Answer:
    try:
        body = json.loads(text) if text else None
    except ValueError as error:
        raise PeerFailed(f"{peer.name} answered {status} with something that is not JSON") from error
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise Refused(f"{peer.name} refuses this user", why=_message(body), fix="run as its owner, or as root")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise NotReady(f"{peer.name} is not ready", why=_message(body), fix="its own log says more; wait, or mend it")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise PeerFailed(f"{peer.name} met an error ({status})", why=_message(body))
    return Answer(status, body)


def _message(body: object) -> str:
    if not isinstance(body, dict):
        return str(body)
    said = [str(body[key]) for key in ("what", "why", "detail", "error", "status") if body.get(key)]
    return ": ".join(said) or str(body)
