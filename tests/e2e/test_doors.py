"""No door of a default start changes state or shows a secret to a caller that has not proved who it is.

The doors are not listed here: the kernel is asked on what every process of the run listens, and each is tried with
every gRPC method that livery speaks and every HTTP path that it serves, over plain TCP, over TLS without a certificate,
and over unix sockets as another user.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.e2e.curl import Answer, curl, curl_each, grpc_call, grpc_each
from tests.e2e.methods import every_method
from tests.e2e.running import Up
from tests.e2e.sockets import UnixSocket, family, tcp_listening, unix_listening

NOBODY = 65534
LOOPBACK = {"127.0.0.1", "::1"}
# Public by its nature: the authorities by which anybody may verify (SPIFFE_Federation 5).
PUBLIC = {"/spire.api.server.bundle.v1.Bundle/GetBundle"}
PUBLIC_HTTP = {("GET", "/health")}
COULD_NOT_CONNECT = 7  # curl's exit code
HTTP_PATHS = (
    "/",
    "/access/v1/evaluation",
    "/access/v1/evaluations",
    "/docs",
    "/openapi.json",
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/admin",
    "/admin/decisions",
    "/decisions",
    "/stock",
    "/stock/apple",
    "/orders",
    "/v1/inspect",
    "/inspect",
    "/debug/pprof",
)
SECRET = re.compile(rb"PRIVATE KEY|eyJ[A-Za-z0-9_-]{10,}\.eyJ|\x30\x77\x02\x01\x01\x04\x20|\x02\x01\x01\x04\x20")
WORKLOAD_HEADER = ("workload.spiffe.io: true",)


def state_of(up: Up) -> tuple[str, ...]:
    """What an intruder could have changed, as an administrator sees it."""
    commands = (
        ("entry", "list", "-o", "json"),
        ("node", "list", "-o", "name"),
        ("bundle", "show"),
    )
    done = [up.livery(*command) for command in commands]
    assert all(each.returncode == 0 for each in done), [each.stderr for each in done]
    return tuple(each.stdout for each in done)


def test_every_tcp_port_is_on_loopback(up: Up) -> None:
    """A default start is for this machine alone."""
    ports = tcp_listening(family(up.process.pid))
    assert len(ports) >= 3
    assert {port.host for port in ports} <= LOOPBACK


def test_no_tcp_port_does_anything_for_a_caller_without_a_certificate(up: Up) -> None:
    before = state_of(up)
    ports = sorted(tcp_listening(family(up.process.pid)))
    for door in (f"{scheme}://{port}" for scheme in ("https", "http") for port in ports):
        try_everything(door, "--insecure")
    assert state_of(up) == before


def try_everything(door: str, *way: str, uid: int | None = None) -> None:
    """Every method of gRPC and every path of HTTP at one door; fails if one is not refused."""
    methods = every_method()
    answers = grpc_each(methods, *way, door, headers=WORKLOAD_HEADER, uid=uid)
    for name, answer in zip(methods, answers, strict=True):
        refused(answer, f"{name} at {way} {door}", public=name in PUBLIC)
    urls = [door + path for path in HTTP_PATHS]
    for method in ("GET", "POST", "DELETE"):
        body = b"{}" if method == "POST" else None
        for url, answer in zip(urls, curl_each(urls, *way, "-X", method, data=body, uid=uid), strict=True):
            refused(answer, f"{method} {url} at {way}", public=(method, url.removeprefix(door)) in PUBLIC_HTTP)


def refused(answer: Answer, what: str, *, public: bool = False) -> None:
    """Nothing came back, or a refusal, or (where everybody may have it) something public; a secret never."""
    assert not SECRET.search(answer.body), what
    if answer.status is None or public:
        return
    if answer.header("content-type") == "application/grpc" or answer.grpc_status is not None:
        assert answer.grpc_status != 0, f"{what}: {answer.told}"
        assert len(answer.body) == 0, f"{what}: {answer.told}"
    else:
        assert answer.status >= 400, f"{what}: {answer.told}"


def test_the_public_bundle_is_what_a_stranger_may_have(up: Up) -> None:
    """The control for the test above: a door that answered nobody would pass it."""
    answer = grpc_call(next(iter(PUBLIC)), "--insecure", f"https://{up.ready['ca_address']}")
    assert answer.grpc_status == 0, answer.told


def test_no_unix_socket_of_authority_is_open_to_others(up: Up) -> None:
    """By their modes; as root a test below also tries."""
    for field in ("ca_socket", "agent_socket"):
        assert not UnixSocket(up.ready[field].removeprefix("unix:")).enterable_by_others(), field


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to run a client as another user")
def test_no_unix_socket_does_anything_for_another_user(up: Up) -> None:
    before = state_of(up)
    doors = sorted(unix_listening(family(up.process.pid)))
    assert len(doors) >= 4
    for door in doors:
        at = ("--abstract-unix-socket", door.path[1:]) if door.path.startswith("@") else ("--unix-socket", door.path)
        if curl(*at, "http://localhost/", uid=NOBODY).exit_code != COULD_NOT_CONNECT:
            try_everything("http://localhost", *at, uid=NOBODY)
    assert state_of(up) == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to run a client as another user")
def test_the_workload_api_answers_another_user_that_it_has_no_identity(up: Up) -> None:
    """The control for the test above: this socket is for everybody, and says no by the standard's own code."""
    socket = up.ready["spiffe_endpoint_socket"].removeprefix("unix:")
    answer = grpc_call(
        "/SpiffeWorkloadAPI/FetchX509SVID",
        *("--unix-socket", socket, "http://localhost"),
        headers=WORKLOAD_HEADER,
        uid=NOBODY,
    )
    assert answer.grpc_status == 7, answer.told  # PERMISSION_DENIED


def test_no_file_with_a_key_can_be_read_by_others(up: Up) -> None:
    """Every private key of the state is its owner's alone."""
    keys = [path for path in Path(up.state).rglob("*") if path.is_file() and _holds_a_key(path)]
    assert keys
    assert [str(key) for key in keys if key.stat().st_mode & 0o077] == []


def _holds_a_key(path: Path) -> bool:
    return "site-packages" not in path.parts and b"PRIVATE KEY" in path.read_bytes()[: 1 << 20]
