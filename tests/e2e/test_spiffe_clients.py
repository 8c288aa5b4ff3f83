"""The clients of the field, unmodified, against a running `livery up`: PyPI's `spiffe`, go-spiffe v2 and openssl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from spiffe import TrustDomain, WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import ValidateJwtSvidError

from tests.e2e.running import Up, wait_until
from tests.e2e.workloads import admit

GO_PROGRAM = Path(__file__).parents[1] / "integration" / "go"


@pytest.fixture
def client(up: Up, tester: str) -> Iterator[WorkloadApiClient]:
    """The library's client, told no more than the socket."""
    with WorkloadApiClient(socket_path=up.ready["spiffe_endpoint_socket"]) as made:
        yield made


# PyPI `spiffe`


def test_python_fetches_its_x509_context(up: Up, client: WorkloadApiClient, tester: str) -> None:
    context = client.fetch_x509_context(timeout=10)
    assert tester in [str(svid.spiffe_id) for svid in context.x509_svids]
    assert all(len(svid.cert_chain) >= 1 for svid in context.x509_svids)
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(up.ready["trust_domain"]))
    assert bundle is not None
    assert len(bundle.x509_authorities) == 1


def test_a_python_source_is_updated_on_rotation(up: Up, tester: str) -> None:
    """With 20 s of life an SVID is replaced after about ten."""
    updated = threading.Event()
    with X509Source(socket_path=up.ready["spiffe_endpoint_socket"], timeout_in_seconds=10) as source:
        before = source.get_x509_context().default_svid
        source.subscribe_for_updates(updated.set)
        wait_until(
            lambda: updated.is_set() and _serial(source) != before.leaf.serial_number, 40, "an update with a new SVID"
        )
        after = source.get_x509_context().default_svid
    assert after.spiffe_id == before.spiffe_id
    assert after.leaf.not_valid_after_utc > before.leaf.not_valid_after_utc


def _serial(source: X509Source) -> int:
    return source.get_x509_context().default_svid.leaf.serial_number


def test_python_fetches_a_jwt_svid_and_has_it_validated(client: WorkloadApiClient, tester: str) -> None:
    svids = client.fetch_jwt_svids({"billing", "audit"}, timeout=10)
    svid = next(each for each in svids if str(each.spiffe_id) == tester)
    assert svid.audience == {"billing", "audit"}
    valid = client.validate_jwt_svid(svid.token, "billing", timeout=10)
    assert str(valid.spiffe_id) == tester
    with pytest.raises(ValidateJwtSvidError):
        client.validate_jwt_svid(svid.token, "somebody else", timeout=10)
    head, _, signature = svid.token.rpartition(".")
    with pytest.raises(ValidateJwtSvidError):
        client.validate_jwt_svid(f"{head}.{signature[::-1]}", "billing", timeout=10)


def test_python_fetches_the_bundles(up: Up, client: WorkloadApiClient) -> None:
    domain = TrustDomain(up.ready["trust_domain"])
    x509 = client.fetch_x509_bundles(timeout=10).get_bundle_for_trust_domain(domain)
    jwt = client.fetch_jwt_bundles(timeout=10).get_bundle_for_trust_domain(domain)
    assert x509 is not None
    assert jwt is not None
    assert x509.x509_authorities
    assert jwt.jwt_authorities


def test_a_workload_without_an_entry_gets_permission_denied(up: Up, gopeer: Path, tmp_path: Path) -> None:
    """The same program under another name is another workload, and nobody entered it."""
    stranger = shutil.copy(gopeer, tmp_path / "stranger")
    done = run_go(up, Path(stranger), "x509")
    assert done.returncode == 1
    assert "PermissionDenied" in done.stderr


# openssl


def test_openssl_verifies_a_fetched_chain(up: Up, tester: str, tmp_path: Path) -> None:
    fetched = up.livery("svid", "x509", "fetch", "--write", str(tmp_path), "--spiffe-id", tester, "-o", "json")
    assert fetched.returncode == 0, fetched.stderr
    files = {name: str(tmp_path / f"{name}.pem") for name in ("svid", "bundle", "key")}
    trust = ["-CAfile", files["bundle"], "-untrusted", files["svid"]]
    verified = openssl("verify", "-x509_strict", "-purpose", "sslclient", *trust, files["svid"])
    assert verified.returncode == 0, verified.stderr
    assert f"URI:{tester}" in openssl("x509", "-in", files["svid"], "-noout", "-ext", "subjectAltName").stdout
    public = openssl("x509", "-in", files["svid"], "-noout", "-pubkey").stdout
    assert openssl("pkey", "-in", files["key"], "-pubout").stdout == public
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, check=False)


# go-spiffe


@pytest.fixture(scope="module")
def gopeer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The go-spiffe program, built from its own go.mod; TEST_GOPEER names one that was built before."""
    if built := os.environ.get("TEST_GOPEER"):
        return Path(built).resolve()
    if shutil.which("go") is None:
        pytest.skip("no Go on this machine")
    program = tmp_path_factory.mktemp("go") / "gopeer"
    build = ["go", "build", "-mod=readonly", "-o", str(program), "."]
    done = subprocess.run(build, cwd=GO_PROGRAM, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return program.resolve()


@pytest.fixture(scope="module")
def go_id(up: Up, gopeer: Path) -> str:
    """The Go program has an identity of its own, and policy lets it read inventory's stock as `orders` may."""
    return admit(up, "/gopeer", gopeer)


def run_go(up: Up, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments], env=up.environment, capture_output=True, text=True, timeout=90, check=False
    )


def told(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_go_fetches_its_x509_context(up: Up, gopeer: Path, go_id: str) -> None:
    (context,) = told(run_go(up, gopeer, "x509"))
    assert context == {"ids": [go_id], "trust_domains": [up.ready["trust_domain"]]}


def test_go_fetches_a_jwt_svid_that_the_agent_and_go_itself_validate(up: Up, gopeer: Path, go_id: str) -> None:
    (seen,) = told(run_go(up, gopeer, "jwt", "billing"))
    assert seen == {"id": go_id, "remote": go_id, "local": go_id}


def test_go_watches_a_rotation(up: Up, gopeer: Path, go_id: str) -> None:
    updates = told(run_go(up, gopeer, "watch", "2"))
    assert {update["id"] for update in updates} == {go_id}
    assert len({update["serial"] for update in updates}) == 2


def test_go_calls_inventory_over_mtls_by_its_exact_id(up: Up, gopeer: Path, go_id: str) -> None:
    """mTLS comes off; whether the call may be made is policy's to say, and it does not know this caller."""
    inventory = up.ready["services"]["inventory"]
    (answer,) = told(run_go(up, gopeer, "get", f"{inventory['url']}/stock", inventory["id"]))
    assert answer["status"] == 403
    assert json.loads(str(answer["body"]))["reason"]


def test_go_refuses_a_server_with_another_id(up: Up, gopeer: Path, go_id: str) -> None:
    inventory, orders = up.ready["services"]["inventory"], up.ready["services"]["orders"]
    done = run_go(up, gopeer, "get", f"{inventory['url']}/stock", orders["id"])
    assert done.returncode == 1
    assert inventory["id"] in done.stderr
