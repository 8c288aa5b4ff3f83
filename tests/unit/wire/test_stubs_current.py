"""The committed stubs are what core/proto says, and the generator notices when they are not."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
GENERATOR = ROOT / "core" / "proto" / "generate.py"


def check(generator: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(generator), "--check"], capture_output=True, text=True, timeout=100, check=False, cwd="/"
    )


def test_the_committed_stubs_are_current_whatever_the_working_directory() -> None:
    done = check(GENERATOR)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of core/proto and core/livery/wire, elsewhere: no absolute path may reach the output."""
    quiet = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "core" / "proto", tmp_path / "core" / "proto", ignore=quiet)
    shutil.copytree(ROOT / "core" / "livery" / "wire", tmp_path / "core" / "livery" / "wire", ignore=quiet)
    return tmp_path / "core"


def test_a_changed_a_missing_and_a_stray_file_are_each_reported(copy: Path) -> None:
    wire = copy / "livery" / "wire"
    (wire / "types_api.py").write_text("edited = True\n")
    (wire / "agent_api.py").unlink()
    (wire / "stray_api.py").write_text("")
    done = check(copy / "proto" / "generate.py")
    reported = [line for line in done.stderr.splitlines() if line.startswith("core/livery/wire: ")]
    assert done.returncode == 1
    assert reported == [
        "core/livery/wire: differs: types_api.py",
        "core/livery/wire: missing: agent_api.py",
        "core/livery/wire: no .proto explains: stray_api.py",
    ]


def test_generating_repairs_a_changed_a_missing_and_a_stray_file(copy: Path) -> None:
    wire = copy / "livery" / "wire"
    (wire / "types_api.py").write_text("edited = True\n")
    (wire / "agent_api.py").unlink()
    (wire / "stray_api.py").write_text("")
    made = subprocess.run([sys.executable, str(copy / "proto" / "generate.py")], timeout=100, check=False)
    assert (made.returncode, check(copy / "proto" / "generate.py").returncode) == (0, 0)


@pytest.fixture
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wire_generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_generated_names_no_path_of_this_machine(generator: ModuleType) -> None:
    for path, text in generator.generate().items():
        assert str(ROOT) not in text, path
        assert sys.prefix not in text, path


def test_no_generated_module_imports_a_name_that_only_exists_outside_the_wire_package(generator: ModuleType) -> None:
    for path, text in generator.generate().items():
        bare = [
            line for line in text.splitlines() if line.startswith(("from spire", "from workload", "from livery.v1"))
        ]
        assert bare == [], path
