"""TLS peers that do not keep the rules, for tests of who refuses them."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def rogue_context(
    chain: Sequence[x509.Certificate], key: Any, *, server: bool = False, alpn: Sequence[str] = ()
) -> ssl.SSLContext:
    """A context that shows any chain at all and believes whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem += b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.pem"
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context


def key_updates(keylog: Path, number: int) -> bytes:
    """What a TLS 1.3 client sends that asks for new keys again and again (RFC 8446 4.6.3), each time to be answered.

    `keylog` is its context's `keylog_filename`; it must not have sent anything since its handshake, nor do so after.
    """
    secrets = dict(line.split()[::2] for line in keylog.read_text().splitlines() if not line.startswith("#"))
    secret = bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"])
    assert len(secret) == 48, "not TLS_AES_256_GCM_SHA384, which OpenSSL prefers"
    records = []
    for _ in range(number):
        records.append(_key_update(secret))
        secret = _expand(secret, b"traffic upd", 48)
    return b"".join(records)


def _key_update(secret: bytes) -> bytes:
    # RFC 8446 4.6.3, 5.2: KeyUpdate(update_requested) as an inner plaintext of type handshake; the first of its key.
    inner, header = b"\x18\0\0\1\1\x16", b"\x17\3\3\0\x16"
    return header + AESGCM(_expand(secret, b"key", 32)).encrypt(_expand(secret, b"iv", 12), inner, header)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    # RFC 8446 7.1, with an empty context.
    info = length.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
    return HKDFExpand(SHA384(), length, info).derive(secret)
