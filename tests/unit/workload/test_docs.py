"""docs/workload.md is true: each of its programs is run as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import livery.workload
from livery.wire import workload_api
from tests.fakes.workload_api import FakeWorkloadApi, x509_message
from tests.pki import TestCa

PAGE = Path(__file__).parents[3] / "docs" / "workload.md"
PROGRAM = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", re.DOTALL)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The page's programs, as files."""
    for name, text in PROGRAM.findall(PAGE.read_text()):
        (tmp_path / name).write_text(text)
    return tmp_path


@asynccontextmanager
async def workload_api_for(ca: TestCa, path: Path, name: str) -> AsyncIterator[FakeWorkloadApi]:
    async with FakeWorkloadApi(path) as api:
        await api.say(x509_message([ca.issue(name)], ca.bundle()))
        token = ca.jwt_svid(name, "reports")
        api.jwt_answer = workload_api.JWTSVIDResponse(
            svids=[workload_api.JWTSVID(spiffe_id=f"spiffe://example.org{name}", svid=token)]
        )
        api.jwt_bundles = {"spiffe://example.org": ca.bundle().jwt_jwks()}
        yield api


async def program(path: Path, endpoint: str, *arguments: str) -> asyncio.subprocess.Process:
    environ = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": endpoint}
    return await asyncio.create_subprocess_exec(
        sys.executable, str(path), *arguments, env=environ, stdout=asyncio.subprocess.PIPE
    )


async def output(path: Path, endpoint: str, *arguments: str) -> str:
    running = await program(path, endpoint, *arguments)
    try:
        out, _ = await running.communicate()
    finally:
        if running.returncode is None:  # another program failed, and nobody waits for this one any longer
            running.kill()
    assert running.returncode == 0
    return out.decode()


async def test_the_server_and_the_client_talk_and_the_client_refuses_who_it_does_not_expect(programs: Path) -> None:
    ca = TestCa("example.org", now=datetime.now(UTC))
    async with (
        workload_api_for(ca, programs / "i", "/inventory") as ours,
        workload_api_for(ca, programs / "o", "/orders") as theirs,
    ):
        serving = await program(programs / "inventory.py", ours.endpoint, "0")
        assert serving.stdout is not None
        url = f"https://{(await serving.stdout.readline()).decode().strip()}/"
        orders = programs / "orders.py"
        try:
            right, wrong = await asyncio.gather(
                output(orders, theirs.endpoint, url, "spiffe://example.org/inventory"),
                output(orders, theirs.endpoint, url, "spiffe://example.org/else"),
            )
        finally:
            serving.kill()
            await serving.communicate()
    assert right == "hello spiffe://example.org/orders\n"
    assert wrong.startswith("not sent: the peer is spiffe://example.org/inventory")


async def test_the_contexts_and_the_tokens_work_as_shown(programs: Path) -> None:
    ca = TestCa("example.org", now=datetime.now(UTC))
    async with workload_api_for(ca, programs / "w", "/me") as api:
        echoed, verified = await asyncio.gather(
            output(programs / "contexts.py", api.endpoint, "spiffe://example.org/me"),
            output(programs / "tokens.py", api.endpoint),
        )
    assert echoed == "hello, myself\n"
    assert verified == "spiffe://example.org/me ('reports',)\n"


def test_every_error_the_page_names_exists() -> None:
    for name in re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE):
        assert issubclass(getattr(livery.workload, name), livery.workload.WorkloadError)
