"""What holds for the whole run: when its last test is over, no log that it wrote holds a secret that it made."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from tests.leaks import leaks

# The same examples at each run, however busy the machine: a run that fails, fails again. What nobody has tried yet is
# looked for by `pytest --hypothesis-profile=default`.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("steady")

# grpc's handlers of fork() crash the child of a process that has used grpc; ours only ever start other programs. It is
# read at grpc's first use, which is after this.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A shell that is not interactive has SIGINT ignored by what it runs in the background, and so by all that this runs.
signal.signal(signal.SIGINT, signal.default_int_handler)

_CAPTURED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing captured."""
    config.stash[_CAPTURED] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what each test said on its streams and to its loggers: a role run inside a test logs there."""
    report = yield
    item.config.stash[_CAPTURED].extend(text for _, text in report.sections)
    return report


@pytest.fixture(scope="session", autouse=True)
def no_secret_stands_in_any_log(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Look once, after the last test; it fails as an error of that test, with log, line and kind of secret."""
    yield
    root = tmp_path_factory.getbasetemp()
    (root / "captured.log").write_text("\n".join(request.config.stash[_CAPTURED]), "utf-8", "backslashreplace")
    found = [str(leak) for leak in leaks(root)]
    assert not found, "secrets stand in logs:\n" + "\n".join(found)
