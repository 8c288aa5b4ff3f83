"""What `pip install` brings: one wheel from five packages, whole."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("core/livery", "ca/livery_ca", "agent/livery_agent", "policy/livery_policy", "cli/livery_cli")


def test_the_wheel_holds_every_file_of_the_five_packages_and_no_other(tmp_path: Path) -> None:
    """Schemas and migrations are files too, and an editable install would not miss them."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True)
    assert held == {name.partition("/")[2] for name in tracked.stdout.splitlines()}
