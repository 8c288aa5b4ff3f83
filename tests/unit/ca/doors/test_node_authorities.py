"""The authorities of node certificates, from files: what cannot be used is told by the name of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from livery_ca.attest.authorities import MAX_FILE_BYTES, AuthoritiesUnreadable, read_authorities
from tests.fakes.clock import START
from tests.pki import TestCa

ROOT = TestCa("nodes.test", now=START, name="Node root", spiffe_id=None)
SITE = ROOT.intermediate(name="Site", spiffe_id=None)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def strange_ca() -> x509.Certificate:
    """An authority with a name that the parser does not know (an x400Address), which shows only when it is read."""
    san = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3004a3020500"))
    return TestCa("nodes.test", now=START, spiffe_id=None, extra=[(san, False)]).certificate


def test_every_authority_of_every_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(pem(ROOT.certificate, SITE.certificate))
    (tmp_path / "two.pem").write_bytes(pem(SITE.certificate))
    found = read_authorities([tmp_path / "one.pem", tmp_path / "two.pem"])
    assert found == (ROOT.certificate, SITE.certificate)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Unable to load PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "error parsing"),
        (b"#" * (MAX_FILE_BYTES + 1), f"it is longer than {MAX_FILE_BYTES} bytes"),
        (pem(ROOT.sign_leaf("")), "is not a CA certificate"),
        (pem(ROOT.intermediate(ca=False, name="No CA", spiffe_id=None).certificate), "CN=No CA is not a CA"),
        (pem(strange_ca()), "x400Address"),
    ],
)
def test_a_file_of_which_nothing_can_vouch_is_refused_by_its_name(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "nodes.pem"
    path.write_bytes(content)
    with pytest.raises(AuthoritiesUnreadable) as refused:
        read_authorities([path])
    assert refused.value.what == f"cannot use {path} as authorities of node certificates"
    assert why in refused.value.why
    assert "x509pop.ca_bundle_paths" in refused.value.fix


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(AuthoritiesUnreadable, match="No such file"):
        read_authorities([tmp_path / "nowhere.pem"])
