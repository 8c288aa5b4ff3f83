"""Secrets in logs: what a test run has written down, held against every secret that it made.

Owns: finding the secrets under a directory (private keys in PEM, DER or raw, tokens in files that only their owner may
read), the forms in which one of them could turn up in text, and looking for those in every `*.log` below. A finding
names the log, the line and the kind of secret; never the secret.

Not seen: a secret that was neither written to a file nor looks like one (a JWT and a PEM private key always do).
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_LARGEST = 1 << 20  # bytes; a file with a secret of ours is never larger
_SHORTEST = 20  # characters; shorter texts would be found by chance
_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
_RUN = re.compile(rb"[A-Za-z0-9+/_=-]{20,}")
# What is a secret wherever it stands, whoever made it (RFC 7468, RFC 7515 7.1).
_SHAPES = {
    "a PEM private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a signed token": re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
}


@dataclass(frozen=True, slots=True)
class Leak:
    """A place where a secret stands in clear."""

    log: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.log}:{self.line}: {self.what}"


def leaks(root: Path) -> list[Leak]:
    """Every secret that stands in a log under `root`."""
    needles = {needle: name for name, secret in secrets(root) for needle in secret}
    return [leak for log in sorted(root.rglob("*.log")) if log.is_file() for leak in _leaks_of(log, needles)]


def _leaks_of(log: Path, needles: dict[bytes, str]) -> Iterator[Leak]:
    content = log.read_bytes()
    for what, shape in _SHAPES.items():
        for match in shape.finditer(content):
            yield Leak(log, _line(content, match.start()), what)
    # Every needle is one run of these characters: the runs are few beside the whole text.
    runs = b"\n".join(set(_RUN.findall(content)))
    for needle, name in needles.items():
        if needle in runs:
            yield Leak(log, _line(content, content.find(needle)), f"what {name} keeps secret")


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def secrets(root: Path) -> Iterator[tuple[str, set[bytes]]]:
    """Each file under `root` that holds a secret, and the forms in which it could stand in a log."""
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            if path.suffix == ".log" or not path.is_file() or path.is_symlink() or path.stat().st_size > _LARGEST:
                continue
            forms = _forms(path.read_bytes(), private=path.stat().st_mode & 0o077 == 0)
            if forms:
                yield str(path.relative_to(root)), forms


def _forms(content: bytes, *, private: bool) -> set[bytes]:
    forms: set[bytes] = set()
    for block in _PEM.findall(content):
        forms |= _forms_of_pem(block.replace(b"\\n", b"\n"))
    with contextlib.suppress(ValueError, TypeError):
        forms |= _forms_of_key(serialization.load_der_private_key(content, None))
    if private and 16 <= len(content) <= 64:
        forms |= _encodings(content)
    if private and _RUN.fullmatch(content.strip()) and len(content) <= 200:
        forms.add(content.strip())
    return {form for form in forms if len(form) >= _SHORTEST}


def _forms_of_pem(block: bytes) -> set[bytes]:
    # The last line of a short key holds nothing but its public half.
    lines = [line.strip() for line in block.splitlines()][1:-2]
    forms = {line for line in lines if _RUN.fullmatch(line)}
    with contextlib.suppress(ValueError, TypeError):
        forms |= _forms_of_key(serialization.load_pem_private_key(block, None))
    return forms


def _forms_of_key(key: object) -> set[bytes]:
    match key:
        case ec.EllipticCurvePrivateKey():
            return _number(key.private_numbers().private_value)
        case rsa.RSAPrivateKey():
            numbers = key.private_numbers()
            return _number(numbers.p) | _number(numbers.q) | _number(numbers.d)
        case ed25519.Ed25519PrivateKey():
            return _encodings(key.private_bytes_raw())
    return set()


def _number(value: int) -> set[bytes]:
    return _encodings(value.to_bytes((value.bit_length() + 7) // 8, "big")) | {str(value).encode()}


def _encodings(raw: bytes) -> set[bytes]:
    """Hex and base64, also as a part of something longer, where it may begin at any of three offsets."""
    forms = {raw.hex().encode(), raw.hex().upper().encode()}
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw)
        inner = encoded[(offset * 8 + 5) // 6 : len(encoded) - 4]
        forms |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms
