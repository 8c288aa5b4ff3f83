"""The authorities of node certificates, from the files an operator named.

Owns: reading them, with errors that name the file. Does not own: verifying by them (`pop_chain`).

Invariant: an authority that could vouch for nothing (no CA) is a mistake of the operator's and is refused at start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from cryptography import x509

from livery.errors import Kind, LiveryError
from livery_ca.attest.pop_chain import FAULTS

MAX_FILE_BYTES = 4 * 1024 * 1024


class AuthoritiesUnreadable(LiveryError):
    """A file of `x509pop.ca_bundle_paths` cannot be used."""

    code: ClassVar[str] = "node_authorities_unreadable"
    kind: ClassVar[Kind] = Kind.INVALID


def read_authorities(paths: Sequence[Path]) -> tuple[x509.Certificate, ...]:
    """Every certificate of every file, once."""
    return tuple(dict.fromkeys(cert for path in paths for cert in _read(path)))


def _read(path: Path) -> list[x509.Certificate]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it is longer than {MAX_FILE_BYTES} bytes")
        found = x509.load_pem_x509_certificates(data)
        for cert in found:
            _check_authority(cert)
    except (OSError, *FAULTS) as cause:
        raise AuthoritiesUnreadable(
            f"cannot use {path} as authorities of node certificates",
            why=str(cause).splitlines()[0],
            fix="correct x509pop.ca_bundle_paths: PEM files of CA certificates",
        ) from cause
    return found


def _check_authority(cert: x509.Certificate) -> None:
    try:
        is_ca = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise ValueError(f"{cert.subject.rfc4514_string()} is not a CA certificate")
