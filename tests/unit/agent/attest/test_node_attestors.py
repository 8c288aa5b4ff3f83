"""The node's half of each attestation: the bytes on the wire, and files that are not what they should be."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from livery_agent.attest.node.join_token import JoinTokenAttestor
from livery_agent.errors import NodeProofUnavailable
from tests.fakes.node_files import Files, pem_key
from tests.pki import new_key

NONCE = secrets.token_bytes(32)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def challenge(member: str, nonce: bytes = NONCE) -> bytes:
    shown = {"nonce": base64.b64encode(nonce).decode()}
    return json.dumps({"rsa_signature": None, "ecdsa_signature": None, member: shown}).encode()


def digest(*parts: bytes) -> bytes:
    hashed = hashes.Hash(hashes.SHA256())
    for part in parts:
        hashed.update(part)
    return hashed.finalize()


def test_x509pop_presents_leaf_then_intermediates_as_base64_der(files: Files):
    payload = json.loads(files.attestor().prove().payload)
    sent = [x509.load_der_x509_certificate(base64.b64decode(c)) for c in payload["certificates"]]
    assert sent == [files.leaf, files.issuer.certificate]
    assert list(payload) == ["certificates"]


@pytest.mark.parametrize("kind", ["P-256", "P-384"])
def test_x509pop_answers_an_ecdsa_challenge_over_both_nonces(tmp_path: Path, kind: str):
    """The signed digest is SHA-256 of the challenge's nonce and ours, whatever the curve (SPIRE x509pop)."""
    files = Files(tmp_path, kind)
    answer = json.loads(files.attestor().prove().answer(challenge("ecdsa_signature")))
    assert answer["rsa_signature"] is None
    nonce, r, s = (base64.b64decode(answer["ecdsa_signature"][name]) for name in ("nonce", "r", "s"))
    assert len(nonce) == 32
    signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    signed = digest(NONCE, nonce)
    files.key.public_key().verify(signature, signed, ec.ECDSA(Prehashed(hashes.SHA256())))


def test_x509pop_answers_an_rsa_challenge_with_pss(tmp_path: Path):
    files = Files(tmp_path, "rsa-2048")
    answer = json.loads(files.attestor().prove().answer(challenge("rsa_signature")))
    assert answer["ecdsa_signature"] is None
    nonce, signature = (base64.b64decode(answer["rsa_signature"][name]) for name in ("nonce", "signature"))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    files.key.public_key().verify(signature, digest(NONCE, nonce), pss, Prehashed(hashes.SHA256()))


def test_x509pop_never_answers_twice_with_one_nonce(files: Files):
    proof = files.attestor().prove()
    nonces = {json.loads(proof.answer(challenge("ecdsa_signature")))["ecdsa_signature"]["nonce"] for _ in range(8)}
    assert len(nonces) == 8


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        challenge("rsa_signature"),
        challenge("ecdsa_signature", b"short"),
        b'{"ecdsa_signature": {"nonce": "%%%"}}',
        b'{"ecdsa_signature": {"nonce": 7}}',
        b'{"ecdsa_signature": 7}',
    ],
)
def test_x509pop_answers_nothing_but_a_challenge_of_its_kind(files: Files, asked: bytes):
    with pytest.raises(NodeProofUnavailable):
        files.attestor().prove().answer(asked)


def test_x509pop_reads_its_files_anew_each_time(files: Files, tmp_path: Path):
    attestor = files.attestor()
    first = attestor.prove().payload
    Files(tmp_path)  # the operator renews the node's certificate
    assert attestor.prove().payload != first


def test_x509pop_refuses_a_key_that_is_not_the_certificates(files: Files):
    files.private.write_bytes(pem_key(new_key()))
    with pytest.raises(NodeProofUnavailable, match="not the key"):
        files.attestor().prove()


@pytest.mark.parametrize("spoil", ["certificate", "private", "intermediates"])
@pytest.mark.parametrize(
    "content", [None, b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_x509pop_says_which_file_is_missing_or_spoiled(files: Files, spoil: str, content: bytes | None):
    path = getattr(files, spoil)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(NodeProofUnavailable, match=path.name):
        files.attestor().prove()


def test_x509pop_refuses_a_key_that_others_can_read(files: Files):
    files.private.chmod(0o644)
    with pytest.raises(NodeProofUnavailable, match=r"node\.key") as refused:
        files.attestor().prove()
    assert "0644" in refused.value.why
    assert refused.value.fix.startswith("chmod 600 ")


def test_a_token_file_that_others_can_read_is_refused_with_what_to_do(tmp_path: Path):
    path = tmp_path / "token"
    path.write_text("a-token")
    path.chmod(0o644)
    with pytest.raises(NodeProofUnavailable, match="cannot be read") as refused:
        JoinTokenAttestor(path=path).prove()
    assert refused.value.fix == f"chmod 600 {path}"


def test_x509pop_refuses_a_kind_of_key_it_does_not_know(files: Files):
    files.private.write_bytes(pem_key(new_key("ed25519")))
    with pytest.raises(NodeProofUnavailable, match="kind"):
        files.attestor().prove()


def test_no_error_about_a_key_quotes_it(files: Files):
    text = files.private.read_text()
    files.private.write_text(text[:60] + "!" + text[60:])
    with pytest.raises(NodeProofUnavailable) as refused:
        files.attestor().prove()
    said = f"{refused.value} {refused.value.why} {refused.value.__cause__}"
    assert text.splitlines()[1][:30] not in said


def test_a_join_token_is_the_whole_payload():
    assert JoinTokenAttestor("0c5a-4e").prove().payload == b"0c5a-4e"


def test_a_join_token_is_read_from_a_private_file(tmp_path: Path):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("0c5a-4e\n")
    assert JoinTokenAttestor(path=path).prove().payload == b"0c5a-4e"
    path.chmod(0o640)
    with pytest.raises(NodeProofUnavailable, match="token"):
        JoinTokenAttestor(path=path).prove()


@pytest.mark.parametrize("token", ["", "two\nlines", "x" * 1025, "\x00"])
def test_a_token_that_cannot_be_one_is_refused_and_not_repeated(token: str):
    with pytest.raises(NodeProofUnavailable) as refused:
        JoinTokenAttestor(token).prove()
    assert not token or token not in str(refused.value)


def test_a_missing_token_file_is_named(tmp_path: Path):
    with pytest.raises(NodeProofUnavailable, match="nothing-here"):
        JoinTokenAttestor(path=tmp_path / "nothing-here").prove()


def test_the_token_is_in_no_repr():
    assert "0c5a" not in repr(JoinTokenAttestor("0c5a-4e"))


def test_a_challenge_for_a_join_token_is_refused():
    with pytest.raises(NodeProofUnavailable):
        JoinTokenAttestor("0c5a-4e").prove().answer(b"{}")
