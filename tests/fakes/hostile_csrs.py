"""CSRs that an honest agent would not send."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.fakes.node_agent import new_csr, new_key

HUGE = rsa.RSAPublicNumbers(65537, (1 << 16384) - 159).public_key()
"""An RSA-16384 key that nobody factored or ever will: reading it is all that is done with it."""


def spki(key: Any) -> bytes:
    """A public key as its SubjectPublicKeyInfo."""
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def forged(victim: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """A sound CSR in which the key was replaced: whoever sends it does not hold the key it names."""
    mine, theirs = new_key(), victim or new_key()
    return new_csr(mine).replace(spki(mine.public_key()), spki(theirs.public_key()))


def huge() -> bytes:
    """A CSR for an RSA-16384 key, whose signature would take long to check and is garbage anyway."""
    info = _der(0x30, _der(0x02, b"\x00") + x509.Name([]).public_bytes() + spki(HUGE) + _der(0xA0, b""))
    sha256_with_rsa = bytes.fromhex("300d06092a864886f70d01010b0500")
    return _der(0x30, info + sha256_with_rsa + _der(0x03, b"\x00" + b"\x01" * 2048))


def greedy(key: Any = None) -> bytes:
    """A CSR that asks for everything: other names, a CA, the right to sign certificates."""
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    return new_csr(
        key or new_key(),
        x509.UniformResourceIdentifier("spiffe://example.org/spire/server"),
        x509.UniformResourceIdentifier("spiffe://victim.test/everything"),
        x509.DNSName("bank.example"),
        x509.RFC822Name("root@example.org"),
        extra=[(x509.BasicConstraints(ca=True, path_length=None), True), (usage, True)],
    )


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    width = (size.bit_length() + 7) // 8
    return bytes([tag, 0x80 | width]) + size.to_bytes(width) + content
