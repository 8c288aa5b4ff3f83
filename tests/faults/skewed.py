"""A role on a machine whose clock is wrong: `python -m tests.faults.skewed ROLE SECONDS --config FILE --ready-fd N`.

Owns: running the role's own `run` with a `SkewedClock`, and nothing else: its configuration is read, and its errors are
told, as the command does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from livery.errors import LiveryError
from livery.runtime.clock import SkewedClock
from livery.runtime.config import load
from livery_cli.exits import exit_code, tell

_ROLES = {
    "ca": ("livery_ca", "CaConfig"),
    "agent": ("livery_agent", "AgentConfig"),
    "policy": ("livery_policy", "PolicyConfig"),
}


def main() -> int:
    """Run it until SIGTERM; its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=_ROLES)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    wanted = parser.parse_args()
    try:
        asyncio.run(_run(wanted))
    except LiveryError as error:
        _say(wanted.ready_fd, {"error": {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}})
        tell(error)
        return exit_code(error)
    return 0


async def _run(wanted: argparse.Namespace) -> None:
    package, model = _ROLES[wanted.role]
    config_model = getattr(importlib.import_module(f"{package}.config"), model)
    run = importlib.import_module(f"{package}.main").run
    config = load(config_model, wanted.role, wanted.config, os.environ)
    clock = SkewedClock(timedelta(seconds=wanted.seconds))
    task = asyncio.ensure_future(run(config, clock, lambda fields: _say(wanted.ready_fd, fields)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


def _say(descriptor: int, fields: Mapping[str, object]) -> None:
    with os.fdopen(descriptor, "w") as pipe:
        print(json.dumps(fields, default=str), file=pipe, flush=True)


if __name__ == "__main__":
    sys.exit(main())
