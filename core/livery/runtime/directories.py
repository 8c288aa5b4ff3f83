"""Where sockets and state live when nobody says otherwise; the same answer for every role and for the command.

Owns: the two defaults. For root they are the system's (FHS 3.0, 3.15 and 5.8), for a user those of the XDG base
directory specification. Does not own: making the directories. Imports nothing heavy: client commands use it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from livery.errors import Kind, LiveryError


class NoHome(LiveryError):
    """This user has no home, so there is no place that would be theirs."""

    code: ClassVar[str] = "no_home"
    kind: ClassVar[Kind] = Kind.PRECONDITION


def runtime_directory() -> Path:
    """Where sockets live: `/run/livery`, or `$XDG_RUNTIME_DIR/livery`."""
    if os.geteuid() == 0:
        return Path("/run/livery")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}") / "livery"


def state_directory() -> Path:
    """Where state lives: `/var/lib/livery`, or `$XDG_STATE_HOME/livery`; raises `NoHome`."""
    if os.geteuid() == 0:
        return Path("/var/lib/livery")
    named = os.environ.get("XDG_STATE_HOME")
    return (Path(named) if named else _home() / ".local" / "state") / "livery"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as cause:
        raise NoHome(
            "there is no place for state",
            why=f"user {os.geteuid()} has no home directory",
            fix="set HOME or XDG_STATE_HOME, or say where the state is to be",
        ) from cause
