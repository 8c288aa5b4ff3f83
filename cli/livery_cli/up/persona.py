"""Who each service runs as, so that the agent can tell them apart.

Owns: giving each service a UID of its own (as root, where that UID can read the installation), or else an interpreter
of its own, since two Python programs of one installation are the same `unix:path` to the kernel. Does not own: the
attestation itself.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from livery.errors import Kind, LiveryError

# Below systemd's dynamic users (61184), above what distributions give to people and packages.
_FIRST_UID = 61100
_LAST_UID = 61183
_PROBE_USER = "import livery.workload, os, sys; os.stat(sys.argv[1])"
_PROBE_COPY = "import livery.errors, ssl"


class NoInterpreter(LiveryError):
    """This machine's Python cannot be copied, so the services could not be told apart."""

    code: ClassVar[str] = "no_interpreter"
    kind: ClassVar[Kind] = Kind.PRECONDITION


@dataclass(frozen=True, slots=True)
class Persona:
    """Who a service runs as: its UID, its interpreter, and the selectors by which the agent knows it."""

    uid: int
    interpreter: Path
    selectors: tuple[str, ...]


def personas(names: Sequence[str], services: Path) -> dict[str, Persona]:
    """A persona for each service. `services` is a directory that may hold interpreters of their own."""
    by_uid = _by_uid(names, services) if os.geteuid() == 0 else None
    return by_uid or {name: _by_interpreter(name, services) for name in names}


def _by_uid(names: Sequence[str], reachable: Path) -> dict[str, Persona] | None:
    """A UID each, or None where such a user could not read the installation or reach the sockets."""
    free = [uid for uid in range(_FIRST_UID, _LAST_UID) if not _taken(uid)]
    if len(free) < len(names) or not _can_run(free[0], reachable):
        return None
    interpreter = Path(sys.executable)
    return {name: Persona(uid, interpreter, (f"unix:uid:{uid}",)) for name, uid in zip(names, free, strict=False)}


def _taken(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _can_run(uid: int, reachable: Path) -> bool:
    """Whether a user reads the installation and gets to the directory: tried, not guessed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE_USER, str(reachable)],
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.defpath},
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _by_interpreter(name: str, services: Path) -> Persona:
    """A copy of this interpreter for one service, made once for each installation."""
    home = services / name
    interpreter = home / "bin" / "python"
    if not _current(home):
        _copy_interpreter(home, interpreter)
    uid = os.geteuid()
    return Persona(uid, interpreter, (f"unix:uid:{uid}", f"unix:path:{interpreter.resolve()}"))


def _copy_interpreter(home: Path, interpreter: Path) -> None:
    """Make the copy and try it; raises `NoInterpreter`. The marker comes last: half a copy is made again."""
    shutil.rmtree(home, ignore_errors=True)
    venv.EnvBuilder(symlinks=False, with_pip=False).create(home)
    for extra in interpreter.parent.glob("python?*"):
        extra.unlink()
    (_site_packages(home) / "livery.pth").write_text(_installation(), "utf-8")
    done = subprocess.run([interpreter, "-c", _PROBE_COPY], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise NoInterpreter(
            f"a copy of this Python for the service {home.name} does not run",
            why=(done.stderr.strip().splitlines() or ["no text"])[-1],
            fix="run livery from a Python that `python -m venv --copies` works with",
        )
    (home / "made-for").write_text(_marker(), "utf-8")


def _current(home: Path) -> bool:
    try:
        return (home / "made-for").read_text("utf-8") == _marker() and (home / "bin" / "python").exists()
    except OSError:
        return False


def _marker() -> str:
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    return f"{base} {base.stat().st_size} {sys.version} {_installation()}"


def _site_packages(home: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))


def _installation() -> str:
    """A `.pth` by which the copy sees this installation, editable ones included."""
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return "".join(f"import site; site.addsitedir({folder!r})\n" for folder in sorted(here))
