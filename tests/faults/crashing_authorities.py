"""A CA that starts, rotates and retires its authorities, and what kill -9 would have left of it at each moment.

    python -m tests.faults.crashing_authorities <directory>

`<directory>/ca` is its state. Before each of its durable effects - a commit, a file that is made, renamed or removed -
the state is copied as it is: to `<directory>/1`, and so on. What a process that is killed leaves is what its files hold
at that moment, and between two effects they hold the same. A line of stdout for each copy: its number, the time of the
CA's clock, and what was about to be done.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, event

from livery.runtime.metrics import Metrics
from livery_ca.config import CaConfig
from livery_ca.engine import Surroundings, opened
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import START, FakeClock

HOUR = timedelta(hours=1)
# The successor is prepared, signs, and a day after the end of the first one everything is due at once.
TURNS = (12 * HOUR, 20 * HOUR, 48 * HOUR)


def config(state: Path) -> CaConfig:
    return CaConfig(trust_domain="example.org", state_dir=state, ca_ttl=24 * HOUR)


def around(clock: FakeClock) -> Surroundings:
    return Surroundings(clock, RecordingAudit(), Metrics())


async def live(state: Path, clock: FakeClock) -> None:
    async with opened(config(state), around(clock)) as engine:
        for turn in TURNS:
            clock.advance(START + turn + timedelta(seconds=1) - clock.now())
            await engine.authorities.tick()
            await engine.identity.tick()


@dataclass
class Witness:
    """Copies the state before each effect."""

    state: Path
    clock: FakeClock
    count: int = 0

    def committing(self, connection: Connection) -> None:
        if not connection.exec_driver_sql("PRAGMA query_only").scalar_one():
            self._copy("commit")

    def auditing(self, name: str, arguments: tuple[object, ...]) -> None:
        """A hook of the interpreter's (PEP 578): it is called before the effect."""
        if name not in {"open", "os.mkdir", "os.rename", "os.remove"} or isinstance(arguments[0], int):
            return
        path = Path(os.fsdecode(arguments[0]))  # type: ignore[arg-type]
        is_effect = name != "open" or int(arguments[2]) & os.O_CREAT  # type: ignore[call-overload]
        if is_effect and path.is_relative_to(self.state):
            self._copy(f"{name} {path.relative_to(self.state)}")

    def _copy(self, effect: str) -> None:
        self.count += 1
        if self.state.exists():
            shutil.copytree(self.state, self.state.with_name(str(self.count)))
        print(self.count, self.clock.now().isoformat(), effect, flush=True)


def main(state: Path) -> None:
    clock = FakeClock()
    witness = Witness(state, clock)
    event.listen(Engine, "commit", witness.committing)
    sys.addaudithook(witness.auditing)
    asyncio.run(live(state, clock))


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "ca")
