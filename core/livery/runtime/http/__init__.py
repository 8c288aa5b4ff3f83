"""HTTP to callers whose identity is known: an ASGI application on uvicorn, over mutual TLS or a unix socket.

A connection's way: `server` (listen) → `reception` (who is it?) → `protocol` and `connection` (uvicorn's) → `gate`
(each request has its peer) → the application.
"""

from livery.runtime.http.gate import HttpPeer, NoPeer, peer_of
from livery.runtime.http.protocol import HttpBounds
from livery.runtime.http.server import ApplicationFailed, HttpOptions, HttpServer
from livery.runtime.transport.listen import TcpListen, UnixListen

__all__ = [
    "ApplicationFailed",
    "HttpBounds",
    "HttpOptions",
    "HttpPeer",
    "HttpServer",
    "NoPeer",
    "TcpListen",
    "UnixListen",
    "peer_of",
]
