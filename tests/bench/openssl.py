"""`openssl speed ecdsap256`: how often this machine can sign with P-256 at all, on one core."""

from __future__ import annotations

import re
import subprocess

_LINE = re.compile(r"ecdsa \(nistp256\).*?s\s+[\d.]+s\s+([\d.]+)\s+[\d.]+")


def version() -> str:
    """The version as openssl says it."""
    return subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout.split()[1]


def signatures_per_second(seconds: int) -> float:
    """Signatures a second over this long."""
    done = subprocess.run(
        ["openssl", "speed", "-seconds", str(seconds), "ecdsap256"], capture_output=True, text=True, check=True
    )
    found = _LINE.search(done.stdout)
    if found is None:
        raise RuntimeError(f"openssl speed said nothing of ecdsap256: {done.stdout!r}")
    return float(found[1])
