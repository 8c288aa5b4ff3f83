"""A node certificate for x509pop in files, as an operator lays them down."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from livery_agent.attest.node.x509pop import X509PopAttestor
from tests.pki import TestCa, Twist, new_key


def pem_key(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Files:
    """A node certificate in files, as an operator lays them down."""

    def __init__(self, directory: Path, kind: str = "P-256") -> None:
        self.key = new_key(kind)
        self.root = TestCa("nodes.test", now=datetime.now(UTC))  # the CA looks at them by the real clock
        self.issuer = self.root.intermediate()
        self.leaf = self.issuer.sign_leaf("x509pop://nodes.test/rack/7", Twist(key=self.key))
        self.certificate, self.private = directory / "node.pem", directory / "node.key"
        self.intermediates = directory / "intermediates.pem"
        self.certificate.write_bytes(self.leaf.public_bytes(serialization.Encoding.PEM))
        self.intermediates.write_bytes(self.issuer.certificate.public_bytes(serialization.Encoding.PEM))
        self.private.touch(mode=0o600)
        self.private.write_bytes(pem_key(self.key))

    def attestor(self) -> X509PopAttestor:
        return X509PopAttestor(self.certificate, self.private, self.intermediates)
