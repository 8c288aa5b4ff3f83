"""The folder of private sockets: ours alone, names never used twice, leftovers swept, the living left alone."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from livery.errors import LiveryError
from livery.runtime.transport import private_directory
from livery.runtime.transport.private_directory import MAX_SOCKET_PATH, PrivateDirectory

_HOLDER = """
import sys
from pathlib import Path
from livery.runtime.transport.private_directory import PrivateDirectory
held = PrivateDirectory.create(Path(sys.argv[1]))
(held.path / "1").touch()
print(held.path, flush=True)
sys.stdin.readline()
"""


_SWEEPER = """
import sys
from pathlib import Path
from livery.runtime.transport.private_directory import sweep
print("sweeping", flush=True)
while True:
    sweep(Path(sys.argv[1]))
"""


@pytest.fixture
def holder(tmp_path):
    """Another process with a private directory in the same place."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_only_we_can_enter(tmp_path):
    held = PrivateDirectory.create(tmp_path / "run")
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    held.remove()
    assert not held.path.exists()


def test_names_are_plain_and_never_repeat(tmp_path):
    held = PrivateDirectory.create(tmp_path)
    names = [held.new_name() for _ in range(1000)]
    assert len(set(names)) == 1000
    assert all(re.fullmatch(r"lv[a-z0-9]+/[a-z0-9]+", str(name.relative_to(tmp_path))) for name in names)
    held.remove()


def test_what_a_killed_process_left_is_swept(tmp_path, holder):
    process, theirs = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert theirs.exists()
    PrivateDirectory.create(tmp_path).remove()
    assert not theirs.exists()


def test_what_a_living_process_holds_is_left_alone(tmp_path, holder):
    _, theirs = holder
    PrivateDirectory.create(tmp_path).remove()
    assert (theirs / "1").exists()


def test_two_in_one_process_do_not_sweep_each_other(tmp_path):
    one, two = PrivateDirectory.create(tmp_path), PrivateDirectory.create(tmp_path)
    assert one.path.exists()
    assert two.path.exists()
    one.remove()
    two.remove()


def test_one_that_starts_while_another_sweeps_finds_a_place(tmp_path):
    """Between making a directory and locking it, it looks like a leftover."""
    command = [sys.executable, "-c", _SWEEPER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as sweeper:
        assert sweeper.stdout is not None
        sweeper.stdout.readline()
        try:
            for _ in range(3000):
                PrivateDirectory.create(tmp_path).remove()
        finally:
            sweeper.kill()


def test_nothing_that_is_not_ours_is_swept(tmp_path):
    (tmp_path / "lv01234567.txt").touch()
    (tmp_path / "lv0123456g").mkdir()
    (tmp_path / "lv89abcdef").write_text("a file of that name")
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").touch()
    (tmp_path / "lvaaaaaaaa").symlink_to(target)
    PrivateDirectory.create(tmp_path).remove()
    assert len(list(tmp_path.iterdir())) == 5
    assert (target / "precious").exists()


def test_a_long_path_gives_way_to_a_short_one(tmp_path):
    held = PrivateDirectory.create(tmp_path / ("x" * 90))
    assert held.path.parent == type(tmp_path)(tempfile.gettempdir())
    assert len(os.fsencode(held.new_name())) <= MAX_SOCKET_PATH
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o700
    held.remove()


def test_a_place_that_cannot_be_written_is_our_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LiveryError, match="file"):
        PrivateDirectory.create(tmp_path / "file")


def test_one_that_was_swept_between_its_opening_and_its_lock_takes_the_next_name(tmp_path, monkeypatch):
    locked, swept = private_directory._locked, []

    def late(descriptor: int) -> bool:
        if not swept:
            swept.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            swept[0].rmdir()
        return locked(descriptor)

    monkeypatch.setattr(private_directory, "_locked", late)
    directory = PrivateDirectory.create(tmp_path)
    assert directory.path.is_dir()
    assert directory.path != swept[0]
    directory.remove()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_looks_like_ours_and_is_another_users_is_not_swept(tmp_path):
    theirs = tmp_path / "lv01234567"
    theirs.mkdir()
    os.chown(theirs, 4242, -1)
    private_directory.sweep(tmp_path)
    assert theirs.is_dir()
