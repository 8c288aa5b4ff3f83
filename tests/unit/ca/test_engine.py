"""The engine's start: what it refuses, that a refusal leaves everything as it was, and what its settings do."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from livery.runtime.metrics import Metrics
from livery_ca.certificates.algorithm import KeyType
from livery_ca.config import CaConfig
from livery_ca.engine import Surroundings, opened
from livery_ca.store.errors import StoreMissing
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import START, FakeClock
from tests.unit.ca.house import token


def around(clock: FakeClock) -> Surroundings:
    return Surroundings(clock, RecordingAudit(), Metrics())


@pytest.fixture
def config(tmp_path: Path) -> CaConfig:
    return CaConfig(trust_domain="example.org", state_dir=tmp_path / "ca")


def removed(database: Path) -> None:
    database.unlink()


def emptied(database: Path) -> None:
    database.write_bytes(b"")


def copied_without_its_wal(database: Path) -> None:
    """What the file holds of a young CA while it runs: a header; all else is in the `-wal`."""
    database.unlink()
    made = sqlite3.connect(database)
    made.execute("PRAGMA journal_mode=WAL")
    made.close()
    assert database.stat().st_size > 0


@pytest.mark.parametrize("lose", [removed, emptied, copied_without_its_wal])
async def test_a_database_that_was_lost_is_not_replaced_by_a_new_trust_domain(
    config: CaConfig, clock: FakeClock, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    """Silently nobody would trust anybody; and with the backup put back, all is as it was."""
    async with opened(config, around(clock)) as engine:
        before = engine.authorities.current_bundle()
    shutil.copytree(config.state_dir, tmp_path / "backup")
    lose(config.state_dir / "ca.sqlite")
    for _ in range(2):
        with pytest.raises(StoreMissing, match=r"ca\.sqlite is missing or empty") as refusal:
            async with opened(config, around(clock)):
                pass
        assert str(config.state_dir / "keys") in refusal.value.why
        assert "restore" in refusal.value.fix
    assert len(list((config.state_dir / "keys").iterdir())) == 2
    shutil.rmtree(config.state_dir)
    (tmp_path / "backup").rename(config.state_dir)
    async with opened(config, around(clock)) as engine:
        assert engine.authorities.current_bundle() == before


async def test_the_settings_reach_whom_they_concern(tmp_path: Path, clock: FakeClock) -> None:
    config = CaConfig(
        trust_domain="example.org",
        state_dir=tmp_path / "ca",
        ca_ttl=timedelta(hours=10),
        agent_svid_ttl=timedelta(minutes=20),
        ca_key_type=KeyType.EC_P384,
        jwt_key_type=KeyType.RSA_2048,
        jwt_issuer="https://ca.example.org",
    )
    async with opened(config, around(clock)) as engine:
        signer, jwt_signer = engine.authorities.x509_signer(), engine.authorities.jwt_signer()
        assert (signer.not_after, jwt_signer.not_after) == (START + config.ca_ttl, START + config.ca_ttl)
        key = signer.certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert (key.curve.name, jwt_signer.algorithm) == ("secp384r1", "RS256")
        assert engine.identity.svid().not_after == START + config.agent_svid_ttl
        issued = await engine.jwt_issuer.issue(token())
        assert jwt.decode(issued.token, options={"verify_signature": False})["iss"] == config.jwt_issuer
