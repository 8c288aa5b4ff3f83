"""The node certificate by which this machine's own agent attests (`x509pop`), so that it can always attest again.

Owns: a node CA and one node certificate in the state directory, made once and renewed before they end. Does not own:
the attestation. The key of the node CA is thrown away once it has signed: nobody can make a second node of this state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from livery.runtime.files import write_atomic

_LIFE = timedelta(days=3650)
_RENEW_WITHIN = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Where the node's certificate, its key and the CA that vouches for it lie."""

    certificate: Path
    key: Path
    authority: Path

    def fingerprint(self) -> str:
        """SHA-1 of the certificate in hex: the last part of the agent's ID (`/spire/agent/x509pop/<fingerprint>`)."""
        loaded = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        return loaded.fingerprint(hashes.SHA1()).hex()  # noqa: S303  # a name fixed by the x509pop attestor


def node_identity(directory: Path, now: datetime) -> NodeIdentity:
    """The node identity of this state, made if there is none that lasts another month."""
    node = NodeIdentity(directory / "node.pem", directory / "node.key", directory / "node-ca.pem")
    if not _lasts(node, now):
        _make(node, now)
    return node


def _lasts(node: NodeIdentity, now: datetime) -> bool:
    try:
        loaded = x509.load_pem_x509_certificate(node.certificate.read_bytes())
        key = serialization.load_pem_private_key(node.key.read_bytes(), None)
        return (
            node.authority.exists()
            and key.public_key() == loaded.public_key()
            and now < loaded.not_valid_after_utc - _RENEW_WITHIN
        )
    except (OSError, ValueError):
        return False


def _make(node: NodeIdentity, now: datetime) -> None:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _sign(_Subject("livery up node authority", ca_key.public_key(), is_ca=True), None, ca_key, now)
    leaf = _sign(_Subject("livery up node", key.public_key(), is_ca=False), ca, ca_key, now)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomic(node.authority, ca.public_bytes(serialization.Encoding.PEM), mode=0o644)
    write_atomic(node.key, pkcs8)
    write_atomic(node.certificate, leaf.public_bytes(serialization.Encoding.PEM), mode=0o644)


@dataclass(frozen=True, slots=True)
class _Subject:
    name: str
    public_key: ec.EllipticCurvePublicKey
    is_ca: bool


def _sign(
    subject: _Subject, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(subject.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=subject.is_ca, path_length=None), critical=True)
        .add_extension(_usage(subject.is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject.public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
