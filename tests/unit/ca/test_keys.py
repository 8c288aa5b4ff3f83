"""Key stores: one conformance for all, and what a disk adds: sealing, loss, damage."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_der_private_key

from livery_ca.certificates import algorithm
from livery_ca.certificates.algorithm import KeyType
from livery_ca.keys import KeyMissing, KeyStore, KeyStoreUnavailable, KeyUnreadable
from livery_ca.keys.disk import DiskKeyStore
from livery_ca.keys.memory import MemoryKeyStore


def on_disk(root: Path) -> DiskKeyStore:
    return DiskKeyStore.open(root / "keys", root / "secret" / "key-encryption.key")


@pytest.fixture(params=["memory", "disk"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    return MemoryKeyStore() if request.param == "memory" else on_disk(tmp_path)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_a_key_signs_what_its_public_half_verifies(keys: KeyStore, key_type: KeyType) -> None:
    public_key = keys.generate("k", key_type)
    assert keys.public_key("k") == public_key
    signatures = keys.sign("k", [b"one", b"two"])
    for signature, message in zip(signatures, (b"one", b"two"), strict=True):
        algorithm.check_signature(public_key, signature, message)
    with pytest.raises(InvalidSignature):
        algorithm.check_signature(public_key, signatures[0], b"two")


def test_signing_nothing_is_nothing(keys: KeyStore) -> None:
    keys.generate("k", KeyType.EC_P256)
    assert keys.sign("k", []) == []


def test_a_retired_key_is_gone_and_retiring_again_is_harmless(keys: KeyStore) -> None:
    keys.generate("k", KeyType.EC_P256)
    keys.retire("k")
    keys.retire("k")
    for use in (lambda: keys.public_key("k"), lambda: keys.sign("k", [b"x"])):
        with pytest.raises(KeyMissing):
            use()


def test_a_healthy_store_has_nothing_to_say(keys: KeyStore) -> None:
    assert keys.health() == ""


def test_keys_on_disk_outlive_the_process(tmp_path: Path) -> None:
    public_key = on_disk(tmp_path).generate("k", KeyType.EC_P256)
    again = on_disk(tmp_path)
    assert again.public_key("k") == public_key
    algorithm.check_signature(public_key, again.sign("k", [b"x"])[0], b"x")


def test_no_private_key_is_on_the_disk_in_the_clear(tmp_path: Path) -> None:
    """Neither as PKCS#8 nor in parts: the scalar's bytes are in no file."""
    keys = on_disk(tmp_path)
    keys.generate("k", KeyType.EC_P256)
    scalar = keys._key("k").private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    for file in [f for f in tmp_path.rglob("*") if f.is_file()]:
        content = file.read_bytes()
        assert scalar not in content
        assert scalar[:16] not in content
        with pytest.raises(ValueError, match=r"\w"):
            load_der_private_key(content, None)


def test_no_two_keys_are_sealed_with_the_same_nonce(tmp_path: Path) -> None:
    """AES-GCM under one key-encryption key: a nonce that comes again gives away what it sealed."""
    keys = on_disk(tmp_path)
    for name in ("a", "b", "c"):
        keys.generate(name, KeyType.EC_P256)
    magic = len(b"livery-key-1\n")
    nonces = {(tmp_path / "keys" / f"{name}.key").read_bytes()[magic : magic + 12] for name in ("a", "b", "c")}
    assert len(nonces) == 3


def test_what_a_killed_process_left_half_written_is_swept_at_the_next_start(tmp_path: Path) -> None:
    on_disk(tmp_path).generate("k", KeyType.EC_P256)
    left = tmp_path / "keys" / ".x.key.0123456789abcdef.livery-tmp"
    left.write_bytes(b"half a key")
    on_disk(tmp_path)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["k.key"]


def test_all_files_are_private_and_the_key_encryption_key_is_apart(tmp_path: Path) -> None:
    on_disk(tmp_path).generate("k", KeyType.EC_P256)
    for file in tmp_path.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file
    assert [f.name for f in (tmp_path / "keys").iterdir()] == ["k.key"]


def test_a_lost_key_encryption_key_is_said_and_not_replaced(tmp_path: Path) -> None:
    on_disk(tmp_path).generate("k", KeyType.EC_P256)
    (tmp_path / "secret" / "key-encryption.key").unlink()
    with pytest.raises(KeyUnreadable, match="missing") as refusal:
        on_disk(tmp_path)
    assert refusal.value.fix
    assert not (tmp_path / "secret" / "key-encryption.key").exists()


def test_another_key_encryption_key_opens_nothing(tmp_path: Path) -> None:
    on_disk(tmp_path).generate("k", KeyType.EC_P256)
    (tmp_path / "secret" / "key-encryption.key").write_bytes(b"x" * 32)
    with pytest.raises(KeyUnreadable) as refusal:
        on_disk(tmp_path).sign("k", [b"x"])
    assert refusal.value.fix


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_encryption_key_of_another_form_is_refused(tmp_path: Path, content: bytes) -> None:
    on_disk(tmp_path)
    (tmp_path / "secret" / "key-encryption.key").write_bytes(content)
    with pytest.raises(KeyUnreadable, match="no key-encryption key"):
        on_disk(tmp_path)


def test_a_key_encryption_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    on_disk(tmp_path)
    (tmp_path / "secret" / "key-encryption.key").chmod(0o644)
    with pytest.raises(KeyUnreadable, match="could not read") as refusal:
        on_disk(tmp_path)
    assert "chmod" in refusal.value.fix


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    on_disk(tmp_path).generate("k", KeyType.EC_P256)
    (tmp_path / "keys" / "k.key").chmod(0o640)
    with pytest.raises(KeyUnreadable, match="could not read key k") as refusal:
        on_disk(tmp_path).sign("k", [b"x"])
    assert "chmod 600" in refusal.value.fix


def test_the_place_of_a_key_encryption_key_is_left_as_it_is_or_made_private(tmp_path: Path) -> None:
    """It may be /etc, or a mount of somebody else's: were it closed to all others, the machine would be broken."""
    shared = tmp_path / "etc"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    DiskKeyStore.open(tmp_path / "keys", shared / "livery.key")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    assert stat.S_IMODE((shared / "livery.key").stat().st_mode) == 0o600
    DiskKeyStore.open(tmp_path / "other", tmp_path / "new" / "livery.key")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_every_damaged_byte_of_a_key_file_is_noticed(tmp_path: Path) -> None:
    on_disk(tmp_path).generate("k", KeyType.EC_P256)
    path = tmp_path / "keys" / "k.key"
    sound = path.read_bytes()
    for position in range(0, len(sound), 7):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1]) + sound[position + 1 :])
        with pytest.raises(KeyUnreadable):
            on_disk(tmp_path).public_key("k")
    for cut in (0, 5, len(sound) - 1):
        path.write_bytes(sound[:cut])
        with pytest.raises(KeyUnreadable):
            on_disk(tmp_path).public_key("k")


def test_a_key_file_under_another_name_is_not_that_key(tmp_path: Path) -> None:
    """The name is sealed in: an intruder on the disk cannot make one authority sign as another."""
    keys = on_disk(tmp_path)
    keys.generate("a", KeyType.EC_P256)
    keys.generate("b", KeyType.EC_P256)
    (tmp_path / "keys" / "a.key").rename(tmp_path / "keys" / "b.key")
    with pytest.raises(KeyUnreadable):
        on_disk(tmp_path).public_key("b")


@pytest.mark.parametrize("name", ["../k", "", "K", "a/b", "a.b", "x" * 65, "k\n"])
def test_a_key_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyMissing):
        on_disk(tmp_path).generate(name, KeyType.EC_P256)
    assert list((tmp_path / "keys").iterdir()) == []


def test_a_name_is_used_once(tmp_path: Path) -> None:
    keys = on_disk(tmp_path)
    first = keys.generate("k", KeyType.EC_P256)
    with pytest.raises(KeyUnreadable, match="exists"):
        keys.generate("k", KeyType.EC_P256)
    assert on_disk(tmp_path).public_key("k") == first


def test_a_disk_that_takes_no_file_leaves_nothing_behind(tmp_path: Path) -> None:
    keys = on_disk(tmp_path)
    (tmp_path / "keys").rmdir()
    with pytest.raises(KeyStoreUnavailable) as refusal:
        keys.generate("k", KeyType.EC_P256)
    assert refusal.value.fix
    assert keys.health()
    with pytest.raises(KeyMissing):
        keys.public_key("k")


def test_a_key_that_cannot_be_deleted_is_said_and_signs_no_more_here(tmp_path: Path) -> None:
    keys = on_disk(tmp_path)
    keys.generate("k", KeyType.EC_P256)
    (tmp_path / "keys" / "k.key").unlink()
    (tmp_path / "keys" / "k.key").mkdir()  # what root may not unlink either
    with pytest.raises(KeyStoreUnavailable, match="could not delete") as refusal:
        keys.retire("k")
    assert refusal.value.fix
    with pytest.raises(KeyUnreadable):
        keys.sign("k", [b"x"])
