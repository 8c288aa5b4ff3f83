"""A connection that outlives its certificate: its requests are refused, and no client of ours ever meets that."""

from __future__ import annotations

import http.client
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from tests.e2e.running import Up, wait_until


def test_a_request_on_a_connection_kept_past_its_certificates_end_is_answered_401(up: Up, tmp_path: Path) -> None:
    """At a service and at the decision server. Our own clients never meet it: no call of the demo fails."""
    orders = up.ready["services"]["orders"]["id"]
    (tmp_path / "bundle.pem").write_text(up.livery("bundle", "show", "--format", "pem").stdout)
    # The first requests must come before the last quarter of its life, in which each answer closes its connection.
    minted = up.livery("mint", "x509", orders, "--ttl", "16s", "--write", str(tmp_path))
    assert minted.returncode == 0, minted.stderr
    leaf = x509.load_pem_x509_certificate((tmp_path / "svid.pem").read_bytes())
    inventory = kept_alive(up.ready["services"]["inventory"]["url"].removeprefix("https://"), tmp_path)
    policy = kept_alive(up.ready["policy_address"], tmp_path)
    assert ask(inventory, "GET", "/stock/apple") == 200
    assert ask(policy, "GET", "/.well-known/authzen-configuration") == 200
    wait_until(lambda: datetime.now(UTC) > leaf.not_valid_after_utc, 30, "the certificate's end")
    assert ask(inventory, "GET", "/stock/apple") == 401
    assert ask(policy, "POST", "/access/v1/evaluation") == 401
    up.catch_up()
    up.catch_up()
    up.wait_for_calls("allowed", 20)
    assert not [call for call in up.of("call") if call["outcome"] == "failed"], up.told()


def kept_alive(address: str, files: Path) -> http.client.HTTPSConnection:
    """A connection that is never opened anew, whatever the server says."""
    context = ssl.create_default_context(cafile=str(files / "bundle.pem"))
    context.load_cert_chain(files / "svid.pem", files / "key.pem")
    connection = http.client.HTTPSConnection(*address.split(":"), context=context, timeout=10)
    connection.connect()
    connection.auto_open = 0
    return connection


def ask(connection: http.client.HTTPSConnection, method: str, path: str) -> int:
    connection.request(method, path, b"{}" if method == "POST" else None, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status
