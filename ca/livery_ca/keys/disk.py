"""Keys on disk, each in its own file, sealed by a key-encryption key that lives elsewhere.

Owns: the form of a key file, sealing and opening it, when a key-encryption key may be made. Does not own: which keys
there are (`authorities`).

Invariants: a private key is on disk only sealed (AES-256-GCM, its own nonce, its name as associated data, so files
cannot be swapped). A key-encryption key is made only where no sealed key exists: a lost one is never papered over by a
new one. Files are private, and written whole or not at all.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from livery.runtime.files import (
    FileError,
    FileMissing,
    FileNotRead,
    private_directory,
    read_private,
    sweep_leftovers,
    write_atomic,
)
from livery_ca.certificates import algorithm
from livery_ca.certificates.algorithm import KeyType, PrivateKey, PublicKey
from livery_ca.keys.key_store import KEY_ID, KeyStoreUnavailable, KeyUnreadable, missing

_MAGIC = b"livery-key-1\n"
_SUFFIX = ".key"
_NONCE_BYTES = 12
_SEALING_BYTES = 32


class DiskKeyStore:
    """A `KeyStore` of sealed files. Made by `open`."""

    durable = True

    def __init__(self, directory: Path, sealing_key: bytes) -> None:
        self._directory = directory
        self._seal = AESGCM(sealing_key)
        self._opened: dict[str, PrivateKey] = {}

    @classmethod
    def open(cls, directory: Path, key_encryption_key: Path) -> Self:
        """The keys in `directory`, sealed by the key in the file `key_encryption_key` (made at the first start).

        Raises `KeyUnreadable` if keys are there and their key-encryption key is missing, not private, or of another
        form; `FileNotWritten` where the directory cannot be used. Whether it is the right one shows at the first use.
        """
        private_directory(directory)
        _make_place(key_encryption_key.parent)
        sweep_leftovers(directory)
        return cls(directory, _sealing_key(directory, key_encryption_key))

    def generate(self, key_id: str, key_type: KeyType) -> PublicKey:
        """Make a key under this new name; it is on the disk when this returns."""
        path = self._path(key_id)
        if os.path.lexists(path):
            raise KeyUnreadable(f"key {key_id} exists already", why="a key's name is used once")
        key = algorithm.generate(key_type)
        plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = secrets.token_bytes(_NONCE_BYTES)
        try:
            write_atomic(path, _MAGIC + nonce + self._seal.encrypt(nonce, plain, _context(key_id)))
        except FileError as cause:
            raise KeyStoreUnavailable("could not keep a new key", why=str(cause), fix=cause.fix) from cause
        self._opened[key_id] = key
        return key.public_key()

    def public_key(self, key_id: str) -> PublicKey:
        """The public half."""
        return self._key(key_id).public_key()

    def sign(self, key_id: str, messages: Sequence[bytes]) -> list[bytes]:
        """One signature per message."""
        key = self._key(key_id)
        return [algorithm.sign(key, message) for message in messages]

    def retire(self, key_id: str) -> None:
        """Delete the key's file. (What a disk keeps of deleted files is sealed.)"""
        self._opened.pop(key_id, None)
        path = self._path(key_id)
        try:
            path.unlink(missing_ok=True)
        except OSError as cause:
            fix = f"make {self._directory} a directory that user {os.geteuid()} may write"
            raise KeyStoreUnavailable(f"could not delete {path}", why=cause.strerror or "", fix=fix) from cause

    def health(self) -> str:
        """Whether keys can still be read and made."""
        usable = os.access(self._directory, os.R_OK | os.W_OK | os.X_OK)
        return "" if usable else f"{self._directory} cannot be read and written"

    def _key(self, key_id: str) -> PrivateKey:
        key = self._opened.get(key_id)  # looked up once: meanwhile another thread may retire it
        if key is None:
            key = self._opened[key_id] = self._read(key_id)
        return key

    def _read(self, key_id: str) -> PrivateKey:
        path = self._path(key_id)
        try:
            sealed = read_private(path)
        except FileMissing as cause:
            raise missing(key_id) from cause
        except FileNotRead as cause:
            raise KeyUnreadable(f"could not read key {key_id}", why=str(cause), fix=cause.fix) from cause
        if not sealed.startswith(_MAGIC):
            raise KeyUnreadable(f"{path} is no key file of livery", fix="restore it from a backup")
        nonce, rest = sealed[len(_MAGIC) :][:_NONCE_BYTES], sealed[len(_MAGIC) + _NONCE_BYTES :]
        try:
            key = load_der_private_key(self._seal.decrypt(nonce, rest, _context(key_id)), None)
        except (InvalidTag, ValueError):
            why = "it is damaged, or was sealed by another key-encryption key"
            fix = "put back the key-encryption key that goes with this state, or restore both from a backup"
            raise KeyUnreadable(f"could not open {path}", why=why, fix=fix) from None
        assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey), "generate makes no other"
        return key

    def _path(self, key_id: str) -> Path:
        if not KEY_ID.fullmatch(key_id):
            raise missing(key_id)
        return self._directory / f"{key_id}{_SUFFIX}"


def _make_place(directory: Path) -> None:
    """Make the directory, private, if it is not there; one that is may be anybody's, and /etc is not to be closed."""
    if not os.path.isdir(directory):  # noqa: PTH112 - the Path's raises where we may not look
        private_directory(directory)


def _sealing_key(directory: Path, path: Path) -> bytes:
    try:
        key = read_private(path)
    except FileMissing as cause:
        if any(directory.glob(f"*{_SUFFIX}")):
            why = f"the keys in {directory} were sealed by it"
            fix = f"put {path} back from its backup; without it these keys cannot be opened"
            raise KeyUnreadable(f"the key-encryption key {path} is missing", why=why, fix=fix) from cause
        write_atomic(path, secrets.token_bytes(_SEALING_BYTES))
        return read_private(path)
    except FileNotRead as cause:
        raise KeyUnreadable("could not read the key-encryption key", why=str(cause), fix=cause.fix) from cause
    if len(key) != _SEALING_BYTES:
        why = f"it has {len(key)} bytes, not {_SEALING_BYTES}"
        raise KeyUnreadable(f"{path} is no key-encryption key", why=why, fix="put it back from its backup")
    return key


def _context(key_id: str) -> bytes:
    return _MAGIC + key_id.encode("ascii")
