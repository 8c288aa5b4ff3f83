"""Node attestation by proof of possession: the node holds the key of a certificate the CA's operator trusts.

Owns: the client's half. Opening: the certificates as JSON. Challenge: a nonce of the CA; answer: our own nonce and a
signature over SHA-256 of both (challenge first). Mixing in our own nonce means that we never sign what a stranger
chose. Does not own: whether the certificate is accepted, and the node's ID, which follow from the CA's configuration.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from livery.errors import LiveryError
from livery.runtime.files import read_private
from livery_agent.attest.node.attestor import NodeProof
from livery_agent.errors import NodeProofUnavailable

NONCE_LENGTH = 32
MAX_FILE = 64 * 1024

NodeKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class X509PopAttestor:
    """Proves possession of the key in `private_key_path` to the certificate in `certificate_path`.

    Intermediates may follow the leaf in its own file or stand in one of their own. All are PEM.
    """

    certificate_path: Path
    private_key_path: Path
    intermediates_path: Path | None = None
    method: str = "x509pop"

    def prove(self) -> NodeProof:
        """Read the files (they may have been replaced since the last time) and be ready to answer with their key."""
        chain = _certificates(self.certificate_path)
        if self.intermediates_path is not None:
            chain += _certificates(self.intermediates_path)
        key = _private_key(self.private_key_path)
        if _public_der(chain[0].public_key()) != _public_der(key.public_key()):
            raise NodeProofUnavailable(
                f"{self.private_key_path} is not the key of {self.certificate_path}",
                fix="give the agent a certificate (leaf first) and its own key",
            )
        encoded = [_b64(certificate.public_bytes(serialization.Encoding.DER)) for certificate in chain]
        payload = json.dumps({"certificates": encoded}).encode()
        return NodeProof(payload=payload, answer=lambda challenge: _answer(key, challenge))


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise NodeProofUnavailable(f"{path} is longer than {MAX_FILE} bytes")
        return x509.load_pem_x509_certificates(data)
    except (OSError, ValueError) as cause:
        raise NodeProofUnavailable(f"no certificate could be read from {path}", why=str(cause)) from cause


def _private_key(path: Path) -> NodeKey:
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (LiveryError, ValueError, TypeError, UnsupportedAlgorithm) as cause:
        # Never the parser's own words about a key file: they may quote it.
        bare = "it is not an unencrypted PEM private key", ""
        why, fix = (str(cause), cause.fix) if isinstance(cause, LiveryError) else bare
        raise NodeProofUnavailable(f"no private key could be read from {path}", why=why, fix=fix) from cause
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise NodeProofUnavailable(
            f"the key in {path} is of a kind x509pop does not know", why="only RSA and EC keys are"
        )
    return key


def _public_der(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _answer(key: NodeKey, challenge: bytes) -> bytes:
    """The response to a challenge; exactly one of the two signatures is present, by the type of key."""
    nonce = secrets.token_bytes(NONCE_LENGTH)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(_nonce(challenge, "ecdsa_signature") + nonce, ec.ECDSA(hashes.SHA256())))
        signature = {"nonce": _b64(nonce), "r": _b64(_big_endian(r)), "s": _b64(_big_endian(s))}
        return json.dumps({"rsa_signature": None, "ecdsa_signature": signature}).encode()
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)
    signed = key.sign(_nonce(challenge, "rsa_signature") + nonce, pss, hashes.SHA256())
    signature = {"nonce": _b64(nonce), "signature": _b64(signed)}
    return json.dumps({"rsa_signature": signature, "ecdsa_signature": None}).encode()


def _nonce(challenge: bytes, member: str) -> bytes:
    try:
        document = json.loads(challenge)
        nonce = base64.b64decode(document[member]["nonce"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as cause:
        raise NodeProofUnavailable(f"the CA's challenge holds no nonce for {member}") from cause
    if len(nonce) != NONCE_LENGTH:
        raise NodeProofUnavailable(f"the CA's nonce has {len(nonce)} bytes", why=f"it must have {NONCE_LENGTH}")
    return nonce


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
