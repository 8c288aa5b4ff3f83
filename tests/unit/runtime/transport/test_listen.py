"""Sockets that a door listens on: only our own file is removed in the end."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from livery.runtime.transport.listen import UnixListen, bind


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
