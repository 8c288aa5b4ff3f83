"""Where the Workload API is (SPIFFE Workload Endpoint 4): `unix:///path` or `tcp://<IP address>:<port>`.

Owns: finding and parsing the address. Does not own: the connection. Pure, but for the default environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Final

from livery.workload.errors import InvalidEndpoint

VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
# An absolute path (RFC 3986 3.3) and nothing else: no authority (`unix://host/p`), query or fragment.
_UNIX: Final = re.compile(r"unix:(?://)?(/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})+)", re.ASCII)
_TCP: Final = re.compile(r"tcp://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_FIX: Final = f"set {VARIABLE} to unix:///path/of/the/agent's/socket"


def find_endpoint(given: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """What was given explicitly, else the environment's `SPIFFE_ENDPOINT_SOCKET`; raises `InvalidEndpoint`."""
    found = given if given is not None else environ.get(VARIABLE, "")
    if not found:
        raise InvalidEndpoint("no address of the Workload API", why=f"{VARIABLE} is not set", fix=_FIX)
    return found


def grpc_target(endpoint: str) -> str:
    """The endpoint as gRPC names it: `unix:///p` stays, `tcp://127.0.0.1:80` becomes `ipv4:127.0.0.1:80`.

    Raises `InvalidEndpoint`.
    """
    if matched := _UNIX.fullmatch(endpoint):
        path = matched[1]
        if path.startswith("//") or path.endswith("/"):
            raise _invalid(endpoint, "a unix address is the absolute path of a socket, without a host")
        return f"unix:{path}"  # percent-encoded as it is: gRPC decodes it
    if matched := _TCP.fullmatch(endpoint):
        return _tcp(endpoint, matched)
    if endpoint.startswith("unix:"):
        raise _invalid(endpoint, "a unix address is an absolute path and nothing else")
    if endpoint.startswith("tcp:"):
        raise _invalid(endpoint, "a tcp address is an IP address and a port and nothing else")
    raise _invalid(endpoint, "its scheme must be unix or tcp")


def _tcp(endpoint: str, matched: re.Match[str]) -> str:
    host, port = matched["v6"] or matched["v4"], int(matched["port"])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise _invalid(endpoint, "its host is not an IP address") from None
    if not 0 < port < 65536 or (address.version == 6) != (matched["v6"] is not None):
        raise _invalid(endpoint, "its port or address is out of range")
    return f"ipv6:[{address}]:{port}" if address.version == 6 else f"ipv4:{address}:{port}"


def _invalid(endpoint: str, why: str) -> InvalidEndpoint:
    return InvalidEndpoint(f"{endpoint!r} is not an address of the Workload API", why=why, fix=_FIX)
