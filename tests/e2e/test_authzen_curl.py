"""AuthZEN 1.0 as curl sees it: over the decision server's unix socket, and over mTLS by the name `localhost`.

Allow, deny (200 with `decision: false`), malformed (400), no credentials (401), known but not admitted (403).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.curl import Answer, curl
from tests.e2e.running import Up

NOBODY = 65534
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
Door = tuple[str, ...]  # curl's arguments that reach the server; the last is the URL without a path


def question(domain: str, method: str = "GET", caller: str = "orders", **changes: Any) -> dict[str, Any]:
    """May `caller` do this to inventory?"""
    http = {"method": method, "path": "/stock/apple", "host": "localhost", "headers": {}}
    return {
        "subject": {"type": "spiffe", "id": f"{domain}/{caller}"},
        "resource": {"type": "service", "id": f"{domain}/inventory"},
        "action": {"name": f"http:{method}"},
        "context": {"http": http},
    } | changes


def post(door: Door, body: object, path: str = EVALUATION, *options: str, uid: int | None = None) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return curl("--header", "content-type: application/json", *options, *door[:-1], door[-1] + path, data=data, uid=uid)


@pytest.fixture(scope="module")
def domain(up: Up) -> str:
    return f"spiffe://{up.ready['trust_domain']}"


@pytest.fixture(scope="module")
def bundle(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("trust") / "bundle.pem"
    file.write_text(up.livery("bundle", "show", "--format", "pem").stdout)
    return file


@pytest.fixture(scope="module")
def socket_door(up: Up) -> Door:
    return ("--unix-socket", up.ready["policy_socket"].removeprefix("unix:"), "http://localhost")


def mtls_door(up: Up, bundle: Path, caller: str, directory: Path) -> Door:
    """The mTLS door with an SVID of this caller's, and the server verified by its name and our bundle."""
    minted = up.livery("mint", "x509", caller, "--ttl", "5m", "--write", str(directory))
    assert minted.returncode == 0, minted.stderr
    own = ("--cert", str(directory / "svid.pem"), "--key", str(directory / "key.pem"))
    return (*own, "--cacert", str(bundle), f"https://{up.ready['policy_address']}")


@pytest.fixture(scope="module")
def admitted_door(up: Up, bundle: Path, domain: str, tmp_path_factory: pytest.TempPathFactory) -> Door:
    return mtls_door(up, bundle, f"{domain}/inventory", tmp_path_factory.mktemp("admitted"))


@pytest.fixture(params=["socket", "mtls"])
def door(request: pytest.FixtureRequest, socket_door: Door, admitted_door: Door) -> Door:
    """Each way in, with credentials that are admitted."""
    return socket_door if request.param == "socket" else admitted_door


def test_an_allowed_call_is_answered_true(door: Door, domain: str) -> None:
    answer = post(door, question(domain), EVALUATION, "--header", "x-request-id: r-1")
    assert (answer.status, answer.header("content-type")) == (200, "application/json"), answer.told
    assert answer.json()["decision"] is True
    assert answer.header("x-request-id") == "r-1"


def test_a_denied_call_is_answered_200_and_false_with_the_class_of_its_reason(door: Door, domain: str) -> None:
    answer = post(door, question(domain, "DELETE"))
    assert answer.status == 200
    assert answer.json()["decision"] is False
    assert set(answer.json()["context"]) == {"id", "reason"}


def test_a_caller_that_no_policy_names_is_denied(door: Door, domain: str) -> None:
    assert post(door, question(domain, caller="stranger")).json()["decision"] is False


def test_several_calls_are_decided_in_one_request_in_their_order(door: Door, domain: str) -> None:
    whole = question(domain)
    delete = question(domain, "DELETE")
    items = [{}, {"action": delete["action"], "context": delete["context"]}, {}]
    answer = post(door, whole | {"evaluations": items}, EVALUATIONS)
    assert answer.status == 200
    assert [each["decision"] for each in answer.json()["evaluations"]] == [True, False, True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'"text"',
        b"{}",
        b'{"subject":{"type":"spiffe"}}',
        b'{"subject":{"type":1,"id":2},"action":{"name":"x"},"resource":{"type":"service","id":"x"}}',
        b'{"subject":{"type":"spiffe","id":"a"},"subject":{"type":"spiffe","id":"b"}}',
        b'{"context":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"\xff\xfe\x00",
        b'{"subject":',
    ],
    ids=lambda body: body[:24].decode("latin1") or "empty",
)
def test_a_malformed_request_is_answered_400_and_a_good_one_after_it_is_served(
    door: Door, domain: str, body: bytes
) -> None:
    answer = post(door, body)
    assert answer.status == 400, answer.told
    assert answer.body
    assert b"Traceback" not in answer.body
    assert post(door, question(domain)).json()["decision"] is True


def test_another_content_type_is_malformed(door: Door, domain: str) -> None:
    data = json.dumps(question(domain)).encode()
    answer = curl("--header", "content-type: text/plain", *door[:-1], door[-1] + EVALUATION, data=data)
    assert answer.status in (400, 415), answer.told


def test_mtls_without_a_certificate_is_answered_401(up: Up, bundle: Path, domain: str) -> None:
    answer = post(("--cacert", str(bundle), f"https://{up.ready['policy_address']}"), question(domain))
    assert answer.status == 401, answer.told
    assert "decision" not in answer.body.decode()


def test_mtls_with_an_identity_that_is_not_admitted_is_answered_403(
    up: Up, bundle: Path, domain: str, tmp_path: Path
) -> None:
    answer = post(mtls_door(up, bundle, f"{domain}/stranger", tmp_path), question(domain))
    assert answer.status == 403, answer.told
    assert "decision" not in answer.body.decode()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to run a client as another user")
def test_a_user_that_is_not_admitted_to_the_socket_is_answered_403(socket_door: Door, domain: str) -> None:
    answer = post(socket_door, question(domain), uid=NOBODY)
    assert answer.status == 403, answer.told


def test_a_certificate_of_another_authority_is_refused_before_any_answer(up: Up, bundle: Path, tmp_path: Path) -> None:
    """The same ID, by an authority that nobody here trusts."""
    from datetime import UTC, datetime

    from tests.pki import TestCa

    forged = TestCa(up.ready["trust_domain"], now=datetime.now(UTC)).issue("/inventory")
    (tmp_path / "svid.pem").write_bytes(forged.chain_pem())
    (tmp_path / "key.pem").write_bytes(forged.key_pem())
    own = ("--cert", str(tmp_path / "svid.pem"), "--key", str(tmp_path / "key.pem"))
    answer = post((*own, "--cacert", str(bundle), f"https://{up.ready['policy_address']}"), {})
    assert answer.status in (None, 401)


def test_the_metadata_names_the_endpoints(socket_door: Door) -> None:
    answer = curl(*socket_door[:-1], socket_door[-1] + "/.well-known/authzen-configuration")
    assert answer.status == 200
    assert answer.json()["access_evaluation_endpoint"].endswith(EVALUATION)
    assert answer.json()["access_evaluations_endpoint"].endswith(EVALUATIONS)
