"""Sockets that a door listens on: only our own file is removed in the end."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from livery.runtime.transport.listen import CannotListen, UnixListen, bind


def test_a_socket_is_removed_with_its_listener(tmp_path):
    path = tmp_path / "s"
    bound = bind(UnixListen(path))
    assert path.is_socket()
    bound.release()
    assert not path.exists()
    bound.release()


def test_a_socket_that_somebody_else_put_there_meanwhile_stays(tmp_path):
    path = tmp_path / "s"
    bound = bind(UnixListen(path))
    path.rename(tmp_path / "ours")  # kept, so that the other one cannot get its inode
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        bound.release()
        assert path.exists()


def test_a_socket_is_not_for_one_moment_open_to_more_than_was_asked(tmp_path, monkeypatch):
    chmod, modes = Path.chmod, []

    def noting(path: Path, mode: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", noting)
    before = os.umask(0)
    try:
        bind(UnixListen(tmp_path / "s", 0o600)).release()
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_a_socket_that_is_bound_and_will_listen_in_a_moment_is_not_taken_for_one_left_behind(tmp_path):
    path = tmp_path / "s"
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # as another process does while it begins
    with socket.socket(socket.AF_UNIX) as other, ThreadPoolExecutor(1) as threads:
        other.bind(str(path))
        began = threading.Event()
        ours = threads.submit(lambda: (began.set(), bind(UnixListen(path)))[1])
        assert began.wait(10)
        threading.Event().wait(0.1)
        other.listen()
        os.close(folder)
        with pytest.raises(CannotListen, match="another process listens there"):
            ours.result(10)
        assert path.lstat().st_ino


def test_a_lock_that_a_stranger_holds_on_the_folder_only_costs_time(tmp_path, monkeypatch):
    monkeypatch.setattr("livery.runtime.transport.listen._TURN", 0.05)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    bind(UnixListen(tmp_path / "s")).release()
    os.close(folder)


def test_a_socket_of_the_next_one_stays_even_if_it_has_our_inode(tmp_path):
    """A listener that is closed and still waits for its calls: the next one finds nobody there, and begins."""
    path = tmp_path / "s"
    bound = bind(UnixListen(path))
    bound.withdraw()
    bound.sock.close()
    other = bind(UnixListen(path))
    bound.inode = other.inode
    bound.release()
    assert path.is_socket()
    other.release()
