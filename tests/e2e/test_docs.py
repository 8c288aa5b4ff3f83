"""The commands of README and the quick start, typed as a new user types them; and no document points at nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.running import Up

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_HERE = ("make ", "livery up")  # they are what this test run is made of
CEDAR = re.compile(r"```cedar\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def commands(document: Path) -> list[str]:
    """The shell lines of a document, without those that start a livery of their own."""
    lines = [line for block in SHELL.findall(document.read_text("utf-8")) for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith(("#", *NOT_HERE))]


def expected_code(line: str) -> int:
    """A denied call is answered with 1; everything else in a quick start just works."""
    return 1 if "http:DELETE" in line else 0


def test_every_command_of_the_quick_start_works_as_written(
    request: pytest.FixtureRequest, start_up: Callable[..., Up], tmp_path: Path
) -> None:
    short = tempfile.mkdtemp(prefix="lv-docs-")  # the sockets are to be under the state, as the document says
    request.addfinalizer(lambda: shutil.rmtree(short, ignore_errors=True))
    up = start_up(state=Path(short) / "livery" / "up")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    document = ROOT / "docs" / "quickstart.md"
    (policy,) = CEDAR.findall(document.read_text("utf-8"))
    (Path(up.ready["state"]) / "policies" / "mine.cedar").write_text(policy)
    lines = commands(document)
    script = "\n".join(f'{line}\necho "::$?" >&2' for line in lines)
    done = subprocess.run(
        ["bash", "-u", "-c", script],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "XDG_STATE_HOME": short,
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    codes = [int(code) for code in re.findall(r"^::(\d+)$", done.stderr, re.MULTILINE)]
    assert list(zip(lines, codes, strict=True)) == [(line, expected_code(line)) for line in lines], done.stderr
    assert "spiffe://demo.livery.test/mine" in done.stdout


@pytest.mark.parametrize("target", ["up", "test", "bench"])
def test_the_makefile_has_what_readme_promises(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


def test_the_map_of_readme_names_folders_that_exist() -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (picture,) = [text for language, text in blocks if not language]
    folders = [line.split()[0] for line in picture.splitlines() if line and not line.startswith(" ")]
    assert len(folders) >= 8
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_nothing_in_the_repository_leans_on_what_is_not_in_it() -> None:
    """It stands alone: no path of a developer's machine, no folder beside the checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    names = [name for name in listed.split("\0") if name] or [str(path.relative_to(ROOT)) for path in DOCUMENTS]
    outside = re.compile(r"\.\./shar" + r"ed|/wo" + r"rk/|(?<!\w)/ro" + r"ot/|help" + r"er-\d|contra" + r"cts\.md")
    found = []
    for name in names:
        path = ROOT / name
        if path.is_file() and path.suffix in {".md", ".py", ".toml", ".proto", ".sh", ".go", ".json", ""}:
            found += [name for _ in outside.findall(path.read_text("utf-8", "replace"))]
    assert not found
