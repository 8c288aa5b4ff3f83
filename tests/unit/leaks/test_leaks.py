"""The search for secrets in logs finds what was put there, in each form; and nothing where there is nothing."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.leaks import leaks
from tests.pki import TestCa

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8, PLAIN = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
Key = ec.EllipticCurvePrivateKey


def write(path: Path, content: bytes | str) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory outside the run's own, whose secrets would otherwise be found when the run is over."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """A private key in a file of its own, as the roles keep theirs."""
    made = ec.generate_private_key(ec.SECP256R1())
    write(tmp_path / "agent.key", made.private_bytes(PEM, PKCS8, PLAIN))
    return made


def scalar(key: Key) -> bytes:
    return key.private_numbers().private_value.to_bytes(32, "big")


FORMS: dict[str, Callable[[Key], str]] = {
    "the whole PEM": lambda key: key.private_bytes(PEM, PKCS8, PLAIN).decode(),
    "PEM within JSON": lambda key: json.dumps({"x": key.private_bytes(PEM, PKCS8, PLAIN).decode().split("-----")[2]}),
    "one line of the PEM": lambda key: key.private_bytes(PEM, PKCS8, PLAIN).decode().splitlines()[2],
    "base64 of the DER": lambda key: base64.b64encode(key.private_bytes(DER, PKCS8, PLAIN)).decode(),
    "base64 of the DER within another message": lambda key: base64.b64encode(
        b"\x0a" + key.private_bytes(DER, PKCS8, PLAIN)
    ).decode(),
    "a JWK's d": lambda key: base64.urlsafe_b64encode(scalar(key)).rstrip(b"=").decode(),
    "hex": lambda key: scalar(key).hex(),
    "a decimal number": lambda key: str(key.private_numbers().private_value),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_private_key_is_found_in_each_of_its_forms(tmp_path: Path, key: Key, form: str) -> None:
    said = FORMS[form](key)
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "ca.log", f'{{"event":"started"}}\n{{"event":"oops","value":"{said}"}}\n')
    found = leaks(tmp_path)
    assert found
    assert {leak.log.name for leak in found} == {"ca.log"}
    assert all(leak.line >= 2 for leak in found)


def test_keys_of_other_kinds_and_raw_keys_are_found_too(tmp_path: Path) -> None:
    big = rsa.generate_private_key(65537, 2048)
    small = ed25519.Ed25519PrivateKey.generate()
    raw, token = secrets.token_bytes(32), secrets.token_urlsafe(24)
    write(tmp_path / "rsa.der", big.private_bytes(DER, PKCS8, PLAIN))
    write(tmp_path / "ed.json", json.dumps({"key": small.private_bytes(PEM, PKCS8, PLAIN).decode()}))
    write(tmp_path / "encryption.key", raw)
    write(tmp_path / "join.token", f"{token}\n")
    said = [f"{big.private_numbers().p:x}", small.private_bytes_raw().hex(), base64.b64encode(raw).decode(), token]
    write(tmp_path / "a.log", "\n".join(said))
    assert {leak.line for leak in leaks(tmp_path)} == {1, 2, 3, 4}


def test_a_signed_token_is_found_whoever_made_it(tmp_path: Path) -> None:
    write(tmp_path / "policy.log", f"authorization: Bearer {TestCa().jwt_svid()}\n")
    assert [leak.what for leak in leaks(tmp_path)] == ["a signed token"]


def test_a_finding_does_not_repeat_the_secret(tmp_path: Path, key: Key) -> None:
    said = scalar(key).hex()
    write(tmp_path / "a.log", said)
    (leak,) = leaks(tmp_path)
    assert said not in str(leak)


def test_public_things_are_no_secrets(tmp_path: Path, key: Key) -> None:
    public = key.public_key()
    spki = public.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    certificate = TestCa().certificate
    write(tmp_path / "bundle.json", json.dumps({"keys": []}))
    said = [
        base64.b64encode(spki).decode(),
        public.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(),
        certificate.public_bytes(PEM).decode(),
        f"{certificate.serial_number:x}",
        "spiffe://example.org/spire/agent/x509pop/0123456789abcdef0123456789abcdef01234567",
    ]
    write(tmp_path / "a.log", "\n".join(said))
    assert leaks(tmp_path) == []


RUN = """
import logging
from pathlib import Path

def test_a_role_logs_its_token(tmp_path: Path) -> None:
    (tmp_path / "join.token").write_text("{token}")
    (tmp_path / "join.token").chmod(0o600)
    {speak}
"""


def run_of_one_test(directory: Path, token: str, speak: str) -> subprocess.CompletedProcess[str]:
    """A whole pytest run of one test, which passes by itself, under the conftest of this run."""
    (directory / "test_it.py").write_text(RUN.format(token=token, speak=speak), "utf-8")
    root = Path(__file__).parents[3]
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull, f"--basetemp={directory}/run"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, f"--rootdir={directory}", str(directory / "test_it.py")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("way", ["(tmp_path / 'agent.log').write_text({0!r})", "logging.getLogger('x').warning({0!r})"])
def test_a_run_whose_logs_hold_a_secret_fails(tmp_path: Path, way: str) -> None:
    """Whether it stands in a log file or in what a test said while it ran."""
    token = secrets.token_urlsafe(24)
    done = run_of_one_test(tmp_path, token, way.format(f"joining with {token}"))
    assert done.returncode == 1, done.stdout
    assert "secrets stand in logs" in done.stdout


def test_a_run_whose_logs_hold_none_passes(tmp_path: Path) -> None:
    token = secrets.token_urlsafe(24)
    done = run_of_one_test(tmp_path, token, f"logging.getLogger('x').warning('joining with {token[:4]}…')")
    assert done.returncode == 0, done.stdout
