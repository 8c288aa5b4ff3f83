"""Where things live when nobody says otherwise."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from livery.runtime.directories import NoHome, runtime_directory, state_directory


def be_user(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    for name in ("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_root_has_the_systems_directories(monkeypatch: pytest.MonkeyPatch):
    be_user(monkeypatch, XDG_STATE_HOME="/x", XDG_RUNTIME_DIR="/y", HOME="/z")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (state_directory(), runtime_directory()) == (Path("/var/lib/livery"), Path("/run/livery"))


def test_a_user_has_those_of_the_base_directory_specification(monkeypatch: pytest.MonkeyPatch):
    be_user(monkeypatch, XDG_STATE_HOME="/x", XDG_RUNTIME_DIR="/y", HOME="/z")
    assert (state_directory(), runtime_directory()) == (Path("/x/livery"), Path("/y/livery"))
    be_user(monkeypatch, HOME="/z")
    assert (state_directory(), runtime_directory()) == (Path("/z/.local/state/livery"), Path("/run/user/4242/livery"))


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    be_user(monkeypatch)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(NoHome, match="4242 has no home") as caught:
        state_directory()
    assert "XDG_STATE_HOME" in caught.value.fix
