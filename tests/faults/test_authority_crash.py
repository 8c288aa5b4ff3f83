"""kill -9 of the CA before each durable effect of its first start and of a whole rotation: it starts again, whole."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

from livery_ca.engine import Engine, opened
from livery_ca.issuance.request import Issued
from livery_ca.model import AuthorityKind, AuthorityState
from tests.fakes.clock import FakeClock
from tests.faults.crashing_authorities import around, config
from tests.unit.ca.house import TD, token, workload

ROOT = Path(__file__).parents[2]


async def test_killed_before_any_effect_of_a_rotation_it_starts_again_with_the_authorities_it_had(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.faults.crashing_authorities", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    killed = [line for line in lines if line[0].isdigit()]  # the others are the log's
    assert {effect.split()[0] for _, _, effect in killed} == {"commit", "open", "os.mkdir", "os.rename", "os.remove"}
    for number, at, effect in killed:
        state, clock = tmp_path / number, FakeClock(datetime.fromisoformat(at))
        async with opened(config(state), around(clock)) as engine:
            await engine.authorities.tick()
            assert engine.authorities.fault == "", effect
            await assert_whole(engine, state)


async def assert_whole(engine: Engine, state: Path) -> None:
    """What must hold after any crash, whenever it came.

    1. One authority of each kind signs, at most one is prepared, and that is so on the disk too.
    2. There is a key for each that is not retired, and no other; nothing half written.
    3. What is published is what follows from the authorities.
    4. It issues.
    """
    living = await engine.store.authorities.list()
    for kind in AuthorityKind:  # 1
        states = [authority.state for authority in living if authority.kind is kind]
        assert states.count(AuthorityState.ACTIVE) == 1
        assert states.count(AuthorityState.PREPARED) <= 1
    names = {path.name for path in (state / "keys").iterdir()}  # 2
    assert names == {f"{authority.key_id}.key" for authority in living}
    bundle = engine.authorities.current_bundle()  # 3
    assert await engine.store.bundles.get(TD) == bundle
    assert {key.key_id for key in bundle.jwt_authorities} == {a.id for a in living if a.kind is AuthorityKind.JWT}
    trusted = {authority.subject_key_id for authority in bundle.x509_authorities}
    assert trusted == {a.id for a in living if a.kind is AuthorityKind.X509}
    (issued,) = await engine.issuer.issue([workload()])  # 4
    assert isinstance(issued, Issued)
    assert (await engine.jwt_issuer.issue(token())).token
