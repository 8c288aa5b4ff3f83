"""Where `livery up` keeps what: one state directory, and sockets under it or, where its path does not do, beside it.

Owns: the paths and their modes. The state directory itself may be entered but not listed by others (0711), so that a
demo service of another UID reaches the Workload API; what is secret lies in 0700 directories below it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from livery.runtime.files import passable_directory

# sun_path holds 108 bytes with its final NUL (unix(7)).
_LONGEST_SOCKET_PATH = 107
_LONGEST_TAIL = len("/agent/workload.sock") + 16
# The address of a socket is a URI, and not every reader of one decodes what is encoded.
_PLAIN = re.compile(r"[A-Za-z0-9/._~@+-]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one `livery up`."""

    state: Path
    run: Path

    @classmethod
    def at(cls, state: Path) -> Layout:
        """Make the directories and return their paths; raises `FileError` or OSError where that is not possible."""
        state = passable_directory(state.absolute())
        run = _run(state / "run")
        layout = cls(state, run)
        for directory in (run, run / "agent", run / "policy", state / "services"):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o711)
        for directory in (run / "ca", state / "ca", state / "agent", state / "node", state / "logs", state / "policy"):
            directory.mkdir(mode=0o700, exist_ok=True)
        return layout

    @property
    def borrowed_run(self) -> bool:
        """Whether the sockets live in a temporary directory that goes away with this run."""
        return self.run.parent != self.state

    def give_back(self) -> None:
        """Remove that directory, and the way to it."""
        shutil.rmtree(self.run, ignore_errors=True)
        (self.state / "run").unlink(missing_ok=True)

    @property
    def ca_socket(self) -> Path:
        """The CA's administration socket."""
        return self.run / "ca" / "admin.sock"

    @property
    def workload_socket(self) -> Path:
        """The Workload API."""
        return self.run / "agent" / "workload.sock"

    @property
    def agent_socket(self) -> Path:
        """The agent's administration socket."""
        return self.run / "agent" / "admin.sock"

    @property
    def policy_socket(self) -> Path:
        """The decision server."""
        return self.run / "policy" / "api.sock"

    @property
    def policies(self) -> Path:
        """The Cedar policies in force."""
        return self.state / "policies"

    @property
    def config(self) -> Path:
        """The configuration that `livery up` writes, a table a role."""
        return self.state / "livery.toml"

    def log(self, role: str) -> Path:
        """Where a role's log goes."""
        return self.state / "logs" / f"{role}.log"


def _run(run: Path) -> Path:
    """Where the sockets are: this path if it does, else a temporary directory to which it leads."""
    if run.is_symlink():  # of a run that was killed; its state is ours alone now
        _remove_own(run.readlink())
        run.unlink()
    if len(os.fsencode(run)) + _LONGEST_TAIL <= _LONGEST_SOCKET_PATH and _PLAIN.fullmatch(str(run)):
        return run
    borrowed = Path(tempfile.mkdtemp(prefix="livery-"))
    run.symlink_to(borrowed)
    return borrowed


def _remove_own(directory: Path) -> None:
    with suppress(OSError):
        if directory.lstat().st_uid == os.geteuid():
            shutil.rmtree(directory)
