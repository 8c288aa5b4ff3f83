"""What a policy server can be told, and what it refuses to be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from livery.runtime.config import ConfigError, load
from livery_policy.config import PolicyConfig


def refused(tmp_path: Path, line: str) -> str:
    (tmp_path / "livery.toml").write_text(f"[policy]\n{line}\n")
    with pytest.raises(ConfigError) as raised:
        load(PolicyConfig, "policy", tmp_path / "livery.toml", {})
    return str(raised.value)


def test_every_setting_has_a_default_but_for_none() -> None:
    assert load(PolicyConfig, "policy", None, {}).listen_port is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('policy_dirs = "x"', "livery.toml:2: unknown key 'policy_dirs'"),
        ('admit_ids = ["spiffe://Demo.test/a"]', "livery.toml:2"),
        ('admit_ids = ["demo"]', "write it like spiffe://"),
        ("admit_uids = [-1]", "livery.toml:2"),
        (
            'headers = ["X-Tenant"]',
            "livery.toml:2: 'headers': 'X-Tenant' is no header a policy can read; write it in lower",
        ),
        ('headers = ["a", "a"]', "livery.toml:2: 'headers': a name is listed twice; a, a"),
        ('claims = ["sub"]', "livery.toml:2: 'claims': the claim 'sub' is always known; leave it out of the list"),
        ('public_url = "http://a.test"', "https://host:port"),
        ('public_url = "https://a.test?x"', "https://host:port"),
        ('public_url = "https://u@a.test"', "https://host:port"),
        ('public_url = "https://a.test/tenant1"', "https://host:port"),
        ("listen_port = 70000", "livery.toml:2"),
        ('max_body = "10B"', "livery.toml:2"),
        ("reload_interval = 5", "write a duration with its unit"),
        ('decision_log = "some"', "livery.toml:2"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    assert told in refused(tmp_path, line)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "livery.toml").write_text('[policy]\nlisten_port = 1\nadmit_uids = [1]\npublic_url = "https://a.test/"')
    environ = {"LIVERY_POLICY__LISTEN_PORT": "2", "LIVERY_POLICY__ADMIT_UIDS": "[3, 4]"}
    config = load(PolicyConfig, "policy", tmp_path / "livery.toml", environ)
    assert (config.listen_port, config.admit_uids, config.public_url) == (2, (3, 4), "https://a.test")
