"""What the command loads before it does anything: its start-up budget, held by module names instead of a clock."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each of these costs 40-370 ms to import; a client command needs none of them.
FORBIDDEN = {"pydantic", "pydantic_settings", "structlog", "sqlalchemy", "alembic", "fastapi", "uvicorn", "cedarpy"}
LATER = FORBIDDEN | {"grpc", "rich", "cryptography", "asyncio"}

NOUNS = ["entry", "node", "token", "bundle", "mint", "svid", "inspect", "can"]
COMMANDS = [
    ["entry", "list"],
    ["entry", "create", "--spiffe-id", "spiffe://a/b", "--parent-id", "spiffe://a/c", "--selector", "unix:uid:1"],
    ["node", "list"],
    ["token", "create"],
    ["bundle", "show"],
    ["bundle", "list"],
    ["mint", "x509", "spiffe://a/b"],
    ["mint", "jwt", "spiffe://a/b", "--audience", "c"],
    ["svid", "x509", "fetch"],
    ["svid", "jwt", "fetch", "--audience", "c"],
    ["inspect"],
    ["can", "spiffe://a/b", "http:GET", "spiffe://a/c"],
    ["explain", "d-1"],
]


def loaded(*arguments: str) -> set[str]:
    """The top-level modules that a run of the command has imported when it ends."""
    program = (
        "import sys; from livery_cli.main import run; code = run(sys.argv[1:]);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    environment = {"PATH": "", "XDG_RUNTIME_DIR": "/nonexistent", "LIVERY_CA_SOCKET": "unix:/nonexistent/a"}
    environment |= {"SPIFFE_ENDPOINT_SOCKET": "unix:/nonexistent/b", "LIVERY_AGENT_SOCKET": "unix:/nonexistent/c"}
    environment |= {"LIVERY_POLICY_SOCKET": "unix:/nonexistent/d"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


def test_help_loads_none_of_the_commands() -> None:
    modules = loaded("--help")
    assert not modules & LATER
    assert "click" in modules


@pytest.mark.parametrize("noun", NOUNS)
def test_the_help_of_a_noun_loads_no_server_code(noun: str) -> None:
    assert not loaded(noun, "--help") & FORBIDDEN


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_a_client_command_loads_no_server_code(arguments: list[str]) -> None:
    """Even when it fails for want of a server, which is as far as these get."""
    assert not loaded(*arguments) & FORBIDDEN
