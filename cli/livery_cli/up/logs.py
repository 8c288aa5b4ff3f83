"""The logs of the roles, kept short enough for a run that nobody ends: a call leaves a kilobyte, and calls are many.

Owns: moving what a log holds aside when it is long. The role writes on into the same file, which is open for appending.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

_LONGEST = 16 << 20  # bytes of a role's log, and as many of what it held before


def shorten(log: Path, longest: int = _LONGEST) -> None:
    """Move what a log holds to `<role>.1.log` if it is too long; where there is no room for that, it stays."""
    with suppress(OSError):
        if log.stat().st_size > longest:
            shutil.copyfile(log, log.with_suffix(".1.log"))
            os.truncate(log, 0)
