"""Sockets that a door listens on: only our own file is removed in the end."""

from __future__ import annotations

import socket

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
