"""The parts put together: what the agent makes of the places it is given."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from livery_agent.errors import UnusableConfig
from livery_agent.main import _reachable_parent


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directories_of_a_socket_can_be_passed_through_whatever_the_umask(tmp_path: Path):
    """A careful administrator's shell has 077; and the socket is for every user of the machine."""
    before = os.umask(0o077)
    try:
        _reachable_parent(tmp_path / "livery" / "agent" / "workload.sock")
    finally:
        os.umask(before)
    assert mode(tmp_path / "livery") == mode(tmp_path / "livery" / "agent") == 0o711


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path):
    tmp_path.chmod(0o750)
    _reachable_parent(tmp_path / "agent" / "workload.sock")
    assert mode(tmp_path) == 0o750


def test_a_directory_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UnusableConfig, match="cannot be made") as refused:
        _reachable_parent(tmp_path / "file" / "agent" / "workload.sock")
    assert str(tmp_path / "file" / "agent") in refused.value.fix
