"""The newest valid policies decide; what is invalid never does, and what was in force stays so."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from livery.runtime.metrics import Metrics
from livery_policy.bundles import directory
from livery_policy.bundles.directory import fingerprint, read_directory
from livery_policy.bundles.keeper import PolicyDirectory, PolicyKeeper
from livery_policy.decisions.log import DecisionLog
from livery_policy.decisions.point import DecisionPoint
from livery_policy.engine.compiling import compile_policies
from livery_policy.engine.source import MAX_FILE, PolicyFile
from livery_policy.errors import InvalidPolicies, UnreadablePolicies
from livery_policy.model.decision import Reason
from tests.fakes.clock import FakeClock
from tests.pki import NOW
from tests.policies import READ_ITEMS, VOCABULARY, get

DENY_ALL = '@id("none") forbid(principal, action, resource);'
BROKEN = '@id("x") permit(principal, action, resource'


Read = Callable[[Path], tuple[PolicyFile, ...]]


class Kept:
    """A keeper over a directory, its point and its clock."""

    def __init__(self, directory: Path, read: Read = read_directory) -> None:
        self.clock = FakeClock(NOW)
        self.metrics = Metrics()
        self.point = DecisionPoint(self.clock, DecisionLog(None), self.metrics)
        source = PolicyDirectory(directory, VOCABULARY, every=1.0, read=read)
        self.keeper = PolicyKeeper(source, self.point, self.clock, self.metrics)

    @property
    def reason(self) -> Reason:
        return self.point.decide(get(), "test").reason

    async def until(self, true: Callable[[], bool]) -> None:
        """Let the watcher look, again and again, until something is so."""
        async with asyncio.timeout(10):
            while not true():
                await self.clock.sleepers(1)
                self.clock.advance(1.0)
                await asyncio.sleep(0.001)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "demo.cedar").write_text(READ_ITEMS)
    return Kept(tmp_path)


async def test_before_anything_is_loaded_nobody_decides(kept: Kept) -> None:
    assert kept.reason is Reason.NO_DECISION


async def test_loading_puts_the_directory_in_force(kept: Kept) -> None:
    status = await kept.keeper.load()
    assert (status.policies, status.version) == (1, kept.point.version)
    assert kept.reason is Reason.PERMITTED


async def test_an_empty_directory_denies_everything(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keeper.load()
    assert kept.reason is Reason.NOT_PERMITTED


async def test_only_cedar_files_of_the_directory_itself_count(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.cedar").write_text(BROKEN)
    (tmp_path / "notes.txt").write_text(BROKEN)
    (tmp_path / ".hidden.cedar").write_text(BROKEN)
    assert read_directory(tmp_path) == ()


async def test_invalid_policies_at_the_start_are_an_error_with_file_and_line(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "bad.cedar").write_text(f"\n\n{BROKEN}")
    with pytest.raises(InvalidPolicies, match=r"bad\.cedar:3"):
        await kept.keeper.load()
    assert kept.point.version is None


async def test_a_change_is_loaded_and_an_invalid_one_keeps_the_last(kept: Kept, tmp_path: Path) -> None:
    await kept.keeper.load()
    watching = asyncio.create_task(kept.keeper.watch())
    (tmp_path / "more.cedar").write_text(DENY_ALL)
    await kept.until(lambda: kept.reason is Reason.FORBIDDEN)
    in_force = kept.point.version
    (tmp_path / "more.cedar").write_text(BROKEN)
    await kept.until(lambda: kept.keeper.status.error is not None)
    assert (kept.reason, kept.point.version) == (Reason.FORBIDDEN, in_force)
    assert b"livery_policies_stale 1.0" in kept.metrics.render()
    (tmp_path / "more.cedar").unlink()
    await kept.until(lambda: kept.reason is Reason.PERMITTED)
    assert kept.keeper.status.error is None
    numbers = kept.metrics.render()
    assert (b"livery_policies_stale 0.0" in numbers, b"livery_policies 1.0" in numbers) == (True, True)
    watching.cancel()


async def test_a_directory_that_is_away_and_comes_back_unchanged_is_well_again(kept: Kept, tmp_path: Path) -> None:
    await kept.keeper.load()
    watching = asyncio.create_task(kept.keeper.watch())
    tmp_path.rename(tmp_path.with_name("away"))
    await kept.until(lambda: kept.keeper.status.error is not None)
    assert kept.reason is Reason.PERMITTED
    tmp_path.with_name("away").rename(tmp_path)
    await kept.until(lambda: kept.keeper.status.error is None)
    watching.cancel()


@pytest.mark.parametrize("wrong", ["invalid", "unreadable"])
async def test_what_an_administrator_found_wrong_is_well_again_when_it_is_taken_back(
    wrong: str, kept: Kept, tmp_path: Path
) -> None:
    """Also where the watcher never saw it: it was there between two of its looks only."""
    await kept.keeper.load()
    watching = asyncio.create_task(kept.keeper.watch())
    bad = tmp_path / "bad.cedar"
    if wrong == "invalid":
        bad.write_text(BROKEN)
    else:
        bad.symlink_to(tmp_path / "nowhere")
    with pytest.raises((InvalidPolicies, UnreadablePolicies)):
        await kept.keeper.load()
    bad.unlink()
    await kept.until(lambda: kept.keeper.status.error is None)
    watching.cancel()


async def test_a_directory_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """Two files of one change: what is loaded is both or neither."""
    (tmp_path / "a.cedar").write_text(READ_ITEMS)
    looks: list[int] = []

    def meddling(directory: Path) -> tuple[PolicyFile, ...]:
        found = read_directory(directory)
        looks.append(len(found))
        if len(looks) == 1:
            (tmp_path / "z.cedar").write_text(DENY_ALL)
        return found

    kept = Kept(tmp_path, meddling)
    loading = asyncio.create_task(kept.keeper.load())
    await kept.clock.sleepers(1)
    kept.clock.advance(1.0)
    assert ((await loading).policies, looks) == (2, [1, 2])


async def test_a_directory_that_never_rests_is_an_error(tmp_path: Path) -> None:
    def meddling(directory: Path) -> tuple[PolicyFile, ...]:
        with (tmp_path / "a.cedar").open("a") as file:
            file.write("//")
        return read_directory(directory)

    kept = Kept(tmp_path, meddling)
    loading = asyncio.create_task(kept.keeper.load())
    while not loading.done():
        await asyncio.sleep(0.001)
        kept.clock.advance(1.0)
    with pytest.raises(UnreadablePolicies, match="does not stop changing"):
        await loading


def test_a_fingerprint_changes_with_every_kind_of_change(tmp_path: Path) -> None:
    seen = [fingerprint(tmp_path)]
    for change in (
        lambda: (tmp_path / "a.cedar").write_text("a"),
        lambda: (tmp_path / "a.cedar").write_text("ab"),
        lambda: os.utime(tmp_path / "a.cedar", (1, 1)),
        lambda: (tmp_path / "a.cedar").rename(tmp_path / "b.cedar"),
        (tmp_path / "b.cedar").unlink,
    ):
        change()
        seen.append(fingerprint(tmp_path))
    assert len(set(seen)) == len(seen) - 1
    assert seen[-1] == seen[0]


def test_another_file_of_the_same_size_and_time_is_a_change(tmp_path: Path) -> None:
    """As a copy with its times is; but it is another inode."""
    (tmp_path / "a.cedar").write_text("//a")
    (tmp_path / "new").write_text("//b")
    for name in ("a.cedar", "new"):
        os.utime(tmp_path / name, (1, 1))
    before = fingerprint(tmp_path)
    (tmp_path / "new").rename(tmp_path / "a.cedar")
    assert fingerprint(tmp_path) != before


def test_a_size_alone_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text("//a")
    os.utime(tmp_path / "a.cedar", (1, 1))
    before = fingerprint(tmp_path)
    (tmp_path / "a.cedar").write_text("//ab")
    os.utime(tmp_path / "a.cedar", (1, 1))
    assert fingerprint(tmp_path) != before


def test_more_files_than_the_bound_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MAX_FILES", 3)
    for n in range(3):
        (tmp_path / f"{n}.cedar").touch()
    assert len(read_directory(tmp_path)) == 3
    (tmp_path / "3.cedar").touch()
    with pytest.raises(UnreadablePolicies, match="more than 3"):
        read_directory(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"), [(b"\n\xff", r"a\.cedar:2"), (b" " * (MAX_FILE + 1), "too long")], ids=["latin", "long"]
)
def test_a_file_that_is_no_policy_text_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.cedar").write_bytes(data)
    with pytest.raises(UnreadablePolicies, match=message):
        read_directory(tmp_path)


UNREADABLE: dict[str, Callable[[Path], None]] = {
    "a link to nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link through a file": lambda path: path.symlink_to(path.with_name("demo.cedar") / "x"),
    "a directory": Path.mkdir,
    "a pipe that nobody writes": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_file_that_cannot_be_read_is_named_and_the_last_policies_stay(
    kept: Kept, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """Neither left out, since it could hold a forbid, nor waited for; and the watcher lives to see it mended."""
    await kept.keeper.load()
    watching = asyncio.create_task(kept.keeper.watch())
    make(tmp_path / "a.cedar")
    await kept.until(lambda: kept.keeper.status.error is not None or watching.done())
    assert "a.cedar cannot be read" in str(kept.keeper.status.error)
    assert kept.reason is Reason.PERMITTED
    (tmp_path / "a.cedar").rename(tmp_path / "elsewhere")
    await kept.until(lambda: kept.keeper.status.error is None or watching.done())
    assert not watching.done()
    watching.cancel()


async def test_what_cannot_be_read_is_told_once_and_looked_at_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "demo.cedar").write_text(READ_ITEMS)
    looks: list[int] = []

    def counting(directory: Path) -> tuple[PolicyFile, ...]:
        looks.append(1)
        return read_directory(directory)

    kept = Kept(tmp_path, counting)
    await kept.keeper.load()
    (tmp_path / "a.cedar").symlink_to(tmp_path / "nowhere")
    with structlog.testing.capture_logs() as logged:
        watching = asyncio.create_task(kept.keeper.watch())
        await kept.until(lambda: len(looks) >= 5)
        watching.cancel()
    assert [line["event"] for line in logged] == ["policies not loaded"]


async def test_what_nobody_foresaw_keeps_the_last_policies_and_the_watcher(tmp_path: Path) -> None:
    (tmp_path / "demo.cedar").write_text(READ_ITEMS)
    broken: list[int] = []

    def breaking(directory: Path) -> tuple[PolicyFile, ...]:
        if broken:
            raise MemoryError("for once")
        return read_directory(directory)

    kept = Kept(tmp_path, breaking)
    await kept.keeper.load()
    broken.append(1)
    watching = asyncio.create_task(kept.keeper.watch())
    (tmp_path / "more.cedar").write_text(DENY_ALL)
    await kept.until(lambda: kept.keeper.status.error is not None or watching.done())
    assert "MemoryError: for once" in str(kept.keeper.status.error)
    assert kept.reason is Reason.PERMITTED
    broken.clear()
    await kept.until(lambda: kept.reason is Reason.FORBIDDEN or watching.done())
    assert not watching.done()
    watching.cancel()


@pytest.mark.parametrize("name", [b"\xff.cedar", b"a\nb.cedar", b"\x1b[31m.cedar"])
def test_a_file_name_of_any_bytes_is_named_as_text(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_text(READ_ITEMS)
    with pytest.raises(InvalidPolicies) as refused:
        compile_policies(read_directory(tmp_path), VOCABULARY)
    (finding,) = refused.value.findings
    assert finding.code == "file-name"
    assert str(finding).isprintable()


def test_a_file_or_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnreadablePolicies, match=r"a\.cedar"):
        read_directory(tmp_path)
    with pytest.raises(UnreadablePolicies, match="missing"):
        read_directory(tmp_path / "missing")
