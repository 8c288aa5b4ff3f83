"""The form of `build/bench.json`, and the statistics in it.

Owns: what a result is, and how repeated runs become one. A value is the median of `n` repeats, `spread` the difference
between the largest and the smallest of them, both in `unit`. `peer` is what it was held against in the same run on the
same machine, and `ratio` is `value / peer_value`; all three are null for a result that stands alone.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

SCHEMA = 1
ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("livery", "grpcio", "cryptography", "protobuf", "uvloop", "sqlalchemy", "cedarpy", "httptools", "uvicorn")


@dataclass(frozen=True, slots=True)
class Result:
    """One figure."""

    name: str
    value: float
    unit: str
    spread: float
    peer: str | None
    peer_value: float | None
    ratio: float | None
    n: int

    def beside(self, name: str, peer: Result) -> Result:
        """The same figure, held against another one of the same run."""
        ratio = figures(self.value / peer.value) if peer.value else None
        return replace(self, name=name, peer=peer.name, peer_value=peer.value, ratio=ratio)


def measured(name: str, unit: str, repeats: Sequence[float]) -> Result:
    """One result of repeated runs."""
    spread = figures(max(repeats) - min(repeats))
    return Result(name, figures(median(repeats)), unit, spread, None, None, None, len(repeats))


def figures(value: float, digits: int = 4) -> float:
    """A number with so many significant digits: more would say what was not measured."""
    return float(f"{value:.{digits}g}")


def document(results: Sequence[Result], versions: Mapping[str, str]) -> dict[str, object]:
    """The whole of `build/bench.json`."""
    return {
        "schema": SCHEMA,
        "commit": _commit(),
        "machine": machine(),
        "versions": {**{name: version(name) for name in _PACKAGES}, **versions},
        "results": [asdict(result) for result in results],
    }


def write(path: Path, content: Mapping[str, object]) -> None:
    """Write the document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def machine() -> dict[str, object]:
    """What the figures depend on, and nothing that names the machine."""
    information = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(models) or 1,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _commit() -> str:
    """The commit that was measured, with a `+` if the checkout differs from it."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")
