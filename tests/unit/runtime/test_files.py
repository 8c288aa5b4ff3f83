"""Private, crash-safe files: what they promise when all goes well, and what they leave when it does not."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from livery.errors import Kind
from livery.runtime.files import (
    FileMissing,
    FileNotRead,
    FileNotWritten,
    NotPrivate,
    StateLock,
    StateLocked,
    StorageFull,
    passable_directory,
    private_directory,
    read_private,
    sweep_leftovers,
    write_atomic,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Let the kernel refuse every byte written to a file beyond the first 64, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_can_be_read_and_only_by_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_atomic(path, b"a secret")
    assert read_private(path) == b"a secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_data_is_on_the_disk_before_its_name_and_the_name_before_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync, synced = tmp_path / "state", os.fsync, []
    path.write_bytes(b"old")

    def noting(fd: int) -> None:
        synced.append((Path(f"/proc/self/fd/{fd}").readlink() == tmp_path, path.read_bytes()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    write_atomic(path, b"new")
    assert synced == [(False, b"old"), (True, b"new")]


def test_a_file_that_the_disk_does_not_give_back_is_our_error() -> None:
    """The memory of a process is a regular file of its owner, and its first page cannot be read (proc(5))."""
    with pytest.raises(FileNotRead, match="Input/output error"):
        read_private("/proc/self/mem")


def test_the_mode_asked_for_is_the_mode_given_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "public.pem", b"x", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "public.pem").stat().st_mode) == 0o644


def test_writing_replaces_the_whole_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"long content " * 100)
    write_atomic(path, b"short")
    assert path.read_bytes() == b"short"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_and_the_old_file_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")
    with no_room(), pytest.raises(StorageFull) as raised:
        write_atomic(path, b"new" * 1000)
    assert str(path) in raised.value.what
    assert raised.value.fix
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotWritten, match=r"could not write .*No such file") as raised:
        write_atomic(tmp_path / "nowhere" / "state", b"x")
    assert raised.value.kind is Kind.UNAVAILABLE


def test_a_directory_nobody_may_write_is_a_clear_error() -> None:
    """/sys refuses new files even to root, as a read-only mount would."""
    with pytest.raises(FileNotWritten, match="could not write"):
        write_atomic("/sys/kernel/livery-state", b"x")


def test_a_directory_in_the_place_of_the_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(FileNotWritten, match="could not write"):
        write_atomic(tmp_path / "state", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from livery.runtime import files\n"
        "files._sync_directory = files.Path.replace = lambda *_: os._exit(9)\n"
        "files.write_atomic(Path(sys.argv[1]) / 'state', b'half')\n"
    )
    write_atomic(tmp_path / "state", b"old")
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    assert sweep_leftovers(tmp_path) == 1
    assert (tmp_path / "state").read_bytes() == b"old"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    write_atomic(path, b"a secret", mode=mode)
    with pytest.raises(NotPrivate, match="others") as raised:
        read_private(path)
    assert "chmod 600" in raised.value.fix
    assert "a secret" not in str(raised.value)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_atomic(path, b"a secret")
    os.chown(path, 4242, -1)
    with pytest.raises(NotPrivate, match="not ours") as raised:
        read_private(path)
    assert "user 4242" in str(raised.value)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_not_private_to_us(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 4242, -1)
    with pytest.raises(NotPrivate, match="not ours"):
        private_directory(tmp_path / "theirs")


def test_a_lock_is_not_taken_through_a_link_to_somewhere_else(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"not a lock")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(FileNotWritten), StateLock(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_bytes() == b"not a lock"


def test_a_file_is_its_owners_alone_until_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, modes = os.write, []

    def noting(fd: int, data: bytes) -> int:
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return write(fd, data)

    monkeypatch.setattr(os, "write", noting)
    write_atomic(tmp_path / "public.pem", b"x", mode=0o644)
    assert modes == [0o600]


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileMissing) as raised:
        read_private(tmp_path / "key.pem")
    assert raised.value.kind is Kind.NOT_FOUND


def test_a_named_pipe_is_refused_and_does_not_hold_us_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key.pem", 0o600)
    with pytest.raises(FileNotRead, match="regular"):
        read_private(tmp_path / "key.pem")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotRead, match="regular"):
        read_private(private_directory(tmp_path / "d"))


def test_a_file_beyond_the_limit_is_refused_not_loaded(tmp_path: Path) -> None:
    write_atomic(tmp_path / "big", b"x" * 11)
    with pytest.raises(FileNotRead, match="longer than 10 bytes"):
        read_private(tmp_path / "big", limit=10)


def test_a_private_directory_is_made_with_its_parents_and_kept_private(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o755)
    private_directory(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_the_directories_of_a_socket_can_be_passed_through_whatever_the_umask(tmp_path: Path) -> None:
    """A careful administrator's shell has 077; and the socket is for every user of the machine."""
    before = os.umask(0o077)
    try:
        made = passable_directory(tmp_path / "livery" / "agent")
    finally:
        os.umask(before)
    assert mode(made.parent) == mode(made) == 0o711


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    passable_directory(tmp_path / "agent")
    assert passable_directory(tmp_path) == tmp_path
    assert mode(tmp_path) == 0o750


@pytest.mark.parametrize("place", ["file", "file/agent"])
def test_a_directory_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotWritten, match="could not write") as refused:
        passable_directory(tmp_path / place)
    assert str(tmp_path / place) in str(refused.value)
    assert refused.value.fix


def test_a_file_in_the_place_of_a_private_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(FileNotWritten, match="could not write"):
        private_directory(tmp_path / "state")


def test_a_second_holder_is_refused_and_told_who_holds_the_state(tmp_path: Path) -> None:
    """flock belongs to the open file, so a second lock in this process stands for a second process."""
    with StateLock(tmp_path / "lock"), pytest.raises(StateLocked) as raised:
        StateLock(tmp_path / "lock").acquire()
    assert raised.value.kind is Kind.CONFLICT
    assert str(os.getpid()) in raised.value.why
    assert str(tmp_path) in raised.value.what


def test_a_lock_is_free_again_after_release_and_after_kill(tmp_path: Path) -> None:
    program = (
        "import sys, os\n"
        "from livery.runtime.files import StateLock\n"
        "StateLock(sys.argv[1]).acquire()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "lock")], check=False)
    assert killed.returncode == -9
    for _ in range(2):
        with StateLock(tmp_path / "lock"):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_in_an_unwritable_place_is_a_clear_error() -> None:
    with pytest.raises(FileNotWritten, match="could not write"):
        StateLock("/sys/kernel/lock").acquire()
