"""What the user asked of `livery up`: one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `livery up`."""

    state: Path
    trust_domain: str
    svid_ttl: timedelta
    rate: float  # calls a second between the demo services
    demo: bool
    run_for: timedelta | None
    output: str  # screen or json
