"""An SVID as files: `svid.pem`, `key.pem` (0600) and `bundle.pem`, each written whole or not at all.

Owns: the names and modes. Does not own: atomic writing (`livery.runtime.files`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from livery.runtime.files import write_atomic
from livery_cli.peers.client import Refused


def pem(label: str, der: bytes) -> str:
    """DER as a PEM block (RFC 7468)."""
    body = "\n".join(wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


def write_svid(directory: Path, chain: Sequence[bytes], key: bytes, bundle: Sequence[bytes]) -> dict[str, object]:
    """Write the files and say where they are. The key goes first: a certificate without its key is of no use."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"the directory {directory} cannot be made", why=error.strerror or "", fix="give another one to --write"
        ) from error
    written = {"key_file": directory / "key.pem", "svid_file": directory / "svid.pem"}
    write_atomic(written["key_file"], pem("PRIVATE KEY", key).encode())
    write_atomic(written["svid_file"], "".join(pem("CERTIFICATE", der) for der in chain).encode(), mode=0o644)
    written["bundle_file"] = directory / "bundle.pem"
    write_atomic(written["bundle_file"], "".join(pem("CERTIFICATE", der) for der in bundle).encode(), mode=0o644)
    return {name: str(path) for name, path in written.items()}
