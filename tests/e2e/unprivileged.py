"""The e2e tests once more, as a user without rights: run by root, as `make e2e-unprivileged`.

Owns: a copy of the checkout and an installation that such a user can read, and running pytest there as `nobody`. When
run by a user already, the e2e tests have run unprivileged, and there is nothing left to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def main() -> int:
    """Run them; the exit code of pytest."""
    if os.geteuid() != 0:
        print("not root: the e2e tests have run as an unprivileged user already")
        return 0
    interpreter = readable_python()
    if interpreter is None:
        print("no Python that another user can run: e2e as an unprivileged user not run\n0 passed, 0 failed, 1 skipped")
        return 0
    with tempfile.TemporaryDirectory(prefix="livery-e2e-", dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o755)
        python = install(home, interpreter)
        return run_as_nobody(home, python)


def readable_python() -> str | None:
    """A Python 3.11 or later that a user without rights can start: this one, or one of the system's."""
    candidates = [sys.executable, *(f"/usr/bin/python3{suffix}" for suffix in ("", ".11", ".12", ".13"))]
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in candidates:
        if not Path(candidate).exists():
            continue
        try:
            done = subprocess.run(
                [candidate, "-I", "-c", check], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", check=False
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None


def install(home: Path, interpreter: str) -> Path:
    """Copy what git tracks (and what is new but not ignored), and install it there from the same locks."""
    checkout = home / "livery"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    uv, venv = [sys.executable, "-m", "uv", "--quiet"], home / "venv"
    environment = {**os.environ, "UV_LINK_MODE": "copy", "UV_PYTHON_DOWNLOADS": "never"}
    for step in (
        ["venv", "--python", interpreter, str(venv)],
        ["pip", "install", "--python", str(venv), "--require-hashes", "-r", str(checkout / "requirements/dev.lock")],
        ["pip", "install", "--python", str(venv), "--no-deps", "--no-build-isolation", str(checkout)],
    ):
        subprocess.run([*uv, *step], env=environment, check=True)
    return venv / "bin" / "python"


def go_program(home: Path) -> dict[str, str]:
    """The go-spiffe program, built here, for this user has no Go modules of its own; nothing where there is no Go."""
    if shutil.which("go") is None:
        return {}
    program = home / "gopeer"
    command = ["go", "build", "-mod=readonly", "-o", str(program), "."]
    subprocess.run(command, cwd=ROOT / "tests/integration/go", check=True)
    program.chmod(0o755)
    return {"TEST_GOPEER": str(program)}


def run_as_nobody(home: Path, python: Path) -> int:
    """Run the e2e tests with a home and a temporary directory of the user's own."""
    own = home / "nobody"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    environment = {
        "PATH": f"{python.parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(own),
        "TMPDIR": str(own),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **go_program(home),
    }
    options = ["-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider", f"--basetemp={own}/pytest"]
    done = subprocess.run(
        [str(python), "-m", "pytest", "tests/e2e", *options],
        cwd=home / "livery",
        env=environment,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        umask=0o022,
        check=False,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
