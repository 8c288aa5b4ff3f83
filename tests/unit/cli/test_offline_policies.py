"""Policies asked without a server speak of what the server's configuration lets them speak of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from livery_cli.exits import Exit
from livery_cli.main import run

POLICY = """
@id("tenant")
permit (principal, action == Livery::Action::"http:GET", resource == Livery::Service::"spiffe://example.org/tenants")
when {
  context.http.headers has "x-tenant" && context.http.headers["x-tenant"].contains("acme") &&
  context has jwt && context.jwt has groups && context.jwt.groups.contains("staff")
};
"""
CALL = ["spiffe://example.org/orders", "http:GET", "spiffe://example.org/tenants"]
HEADERS = {"http": {"path": "/", "headers": {"x-tenant": ["acme"]}}}
CONTEXT = HEADERS | {"jwt": {"iss": "i", "sub": "s", "aud": ["a"], "groups": ["staff"]}}
CONFIG = '[policy]\nheaders = ["x-tenant"]\nclaims = ["groups"]\n[ca]\ntrust_domain = "example.org"\n'


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "mine.cedar").write_text(POLICY)
    return tmp_path / "policies"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "livery.toml").write_text(CONFIG)
    return tmp_path / "livery.toml"


def check(policies: Path, *options: str) -> int:
    return run(["policy", "check", str(policies), *options])


def can(policies: Path, *options: str) -> int:
    return run(["can", *CALL, "--context", json.dumps(CONTEXT), "--policies", str(policies), *options])


def test_a_header_that_is_not_configured_is_a_finding(policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(policies) == Exit.NO
    assert "x-tenant" in capsys.readouterr().out


def test_a_terminal_that_cannot_show_every_character_gets_the_answer_too(policies: Path, config: Path) -> None:
    """The arrows of an explanation are in no character set but Unicode's."""
    command = ["can", *CALL, "--context", json.dumps(CONTEXT), "--policies", str(policies), "--config", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", "livery_cli", *command],
        env={"PATH": "", "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (Exit.DONE, b"")
    assert rb"orders \u2192 http:GET" in done.stdout


def test_with_the_servers_file_the_same_policies_pass_and_decide(policies: Path, config: Path) -> None:
    assert check(policies, "--config", str(config)) == Exit.DONE
    assert can(policies, "--config", str(config)) == Exit.DONE


def test_the_file_may_be_named_by_the_environment(
    policies: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVERY_CONFIG", str(config))
    assert check(policies) == Exit.DONE
    assert can(policies) == Exit.DONE


def test_a_variable_counts_as_it_does_for_the_server(
    policies: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVERY_POLICY__HEADERS", "[]")
    assert check(policies, "--config", str(config)) == Exit.NO
    monkeypatch.setenv("LIVERY_POLICY__HEADERS", '["x-tenant"]')
    monkeypatch.setenv("LIVERY_POLICY__CLAIMS", '["groups"]')
    assert check(policies) == Exit.DONE


@pytest.mark.parametrize("text", [None, "[policy]\nheader = []\n", '[policy]\nheaders = ["No Header"]\n'])
def test_a_configuration_that_no_server_would_start_with_is_wrong_usage(
    policies: Path, tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    if text is not None:
        bad.write_text(text)
    for ask in (check, can):
        assert ask(policies, "--config", str(bad)) == Exit.USAGE
        assert "[config_invalid]" in capsys.readouterr().err


def test_a_file_for_a_running_server_is_wrong_usage(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["can", *CALL, "--config", str(config), "--policy-socket", "/nonexistent"]) == Exit.USAGE
    assert "the running server has its own" in capsys.readouterr().err
    monkeypatch.setenv("LIVERY_CONFIG", str(config))
    assert run(["can", *CALL, "--policy-socket", "/nonexistent"]) == Exit.UNREACHABLE
