"""Opening and keeping the store: what is wrong is said clearly, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert
from sqlalchemy.exc import OperationalError

from livery.errors import LiveryError
from livery.runtime.files import FileNotWritten, StateLocked
from livery.runtime.metrics import Metrics
from livery_ca.authorities import Authorities, AuthorityParts, AuthoritySettings
from livery_ca.issuance.timekeeping import TimeGuard
from livery_ca.keys.memory import MemoryKeyStore
from livery_ca.store import Store, schema
from livery_ca.store.errors import (
    EntryIdTaken,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreNewer,
    StoreUnavailable,
    StoreUnwritable,
    translate,
)
from livery_ca.store.rows import UnreadableRow
from livery_ca.upstreams.self_signed import SelfSigned
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import START, FakeClock
from tests.unit.ca.store.values import TD, entry, intent, node


async def filled(path: Path, clock: FakeClock) -> None:
    """A closed store that holds an entry."""
    store = await Store.open(path, clock=clock)
    await store.entries.create(entry("a"))
    await store.close()


async def assert_intact(path: Path, clock: FakeClock) -> None:
    store = await Store.open(path, clock=clock)
    try:
        assert await store.entries.get("a") is not None
    finally:
        await store.close()


def assert_helpful(error: LiveryError) -> None:
    """What, why, and what to do."""
    assert error.what
    assert error.why
    assert error.fix


async def test_what_was_written_is_there_after_a_restart(store_path: Path, clock: FakeClock) -> None:
    await filled(store_path, clock)
    await assert_intact(store_path, clock)


async def test_every_file_of_the_store_is_ours_alone(store: Store, store_path: Path) -> None:
    await store.entries.create(entry("a"))
    names = {file.name for file in store_path.parent.iterdir()}
    assert {"ca.sqlite", "ca.sqlite-wal", "ca.sqlite-shm", "ca.sqlite.lock"} <= names
    for file in store_path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(store_path.parent.stat().st_mode) == 0o700


async def test_a_second_process_is_refused(store: Store, store_path: Path, clock: FakeClock) -> None:
    """(The lock is the kernel's, so a second opening in this process stands for one in another.)"""
    with pytest.raises(StateLocked) as refusal:
        await Store.open(store_path, clock=clock)
    assert_helpful(refusal.value)
    await store.entries.create(entry("a"))


async def test_a_database_held_by_another_program_is_said_to_be_locked(store_path: Path, clock: FakeClock) -> None:
    await filled(store_path, clock)
    other = sqlite3.connect(store_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreLocked) as refusal:
            await Store.open(store_path, clock=clock, busy_seconds=0.05)
        assert_helpful(refusal.value)
    finally:
        other.close()
    await assert_intact(store_path, clock)


@pytest.mark.parametrize("garbage", [b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 4096])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    store_path: Path, clock: FakeClock, garbage: bytes
) -> None:
    store_path.parent.mkdir(mode=0o700)
    store_path.write_bytes(garbage)
    with pytest.raises(StoreCorrupt) as refusal:
        await Store.open(store_path, clock=clock)
    assert_helpful(refusal.value)
    assert store_path.read_bytes() == garbage


async def test_a_damaged_database_is_refused_and_left_alone(store_path: Path, clock: FakeClock) -> None:
    """Pages overwritten in the middle of the file are found at start, not at the first unlucky query."""
    await filled(store_path, clock)
    damaged = bytearray(store_path.read_bytes())
    damaged[8192:40960] = b"\xa5" * (40960 - 8192)
    store_path.write_bytes(damaged)
    with pytest.raises(StoreCorrupt) as refusal:
        await Store.open(store_path, clock=clock)
    assert_helpful(refusal.value)
    assert store_path.read_bytes() == damaged


Look = Callable[[Store], Awaitable[object]]
DAMAGE: list[tuple[str, Look]] = [
    ("UPDATE entries SET spiffe_id = 'garbage'", lambda store: store.entries.list()),
    ("UPDATE entries SET created_at = 4611686018427387904", lambda store: store.entries.list()),
    ("UPDATE entries SET created_at = 'yesterday'", lambda store: store.entries.get("a")),
    ("UPDATE entries SET x509_svid_ttl = 1e300", lambda store: store.entries.get("a")),
    ("UPDATE entries SET dns_names = '['", lambda store: store.entries.list()),
    ("UPDATE entries SET hint = CAST(x'66ff' AS TEXT)", lambda store: store.entries.list()),
    ("UPDATE entry_selectors SET type = ''", lambda store: store.entries.list()),
    ("UPDATE nodes SET id = ''", lambda store: store.nodes.list()),
    ("UPDATE bundles SET document = '{}'", lambda store: store.bundles.get(TD)),
    ("UPDATE authorities SET chain = 'no certificate'", lambda store: store.authorities.list()),
    ("UPDATE authorities SET state = 'retried'", lambda store: store.authorities.list()),
    ("UPDATE authority_events SET kind = ''", lambda store: store.authorities.journal()),
    ("UPDATE intents SET serial = 'x', spiffe_id = 'x'", lambda store: store.journal.abandon_open(START)),
    ("UPDATE intents SET outcome = 'x'", lambda store: store.journal.list()),
    ("UPDATE changes SET kind = 'x'", lambda store: store.changes.since(0)),
]


@pytest.mark.parametrize(("statement", "look"), DAMAGE, ids=[statement for statement, _ in DAMAGE])
async def test_a_damaged_value_in_a_sound_page_is_said_to_be_damage_and_not_shown(
    store_path: Path, clock: FakeClock, statement: str, look: Look
) -> None:
    """SQLite has no checksum over what it keeps; what cannot be read names the file and what to do."""
    store = await Store.open(store_path, clock=clock)
    await store.entries.create(entry("a"))
    await store.nodes.attest(node("a"))
    await store.journal.append([intent(1)])
    keys = MemoryKeyStore()
    parts = AuthorityParts(
        store.authorities, keys, SelfSigned(keys), clock, TimeGuard(clock), Metrics(), RecordingAudit()
    )
    await Authorities(parts, AuthoritySettings(TD)).start()
    await store.close()
    other = sqlite3.connect(store_path)
    assert other.execute(statement).rowcount > 0
    other.commit()
    other.close()
    store = await Store.open(store_path, clock=clock)
    try:
        with pytest.raises(StoreCorrupt) as refusal:
            await look(store)
        assert_helpful(refusal.value)
        assert str(store_path) in refusal.value.what
        assert "garbage" not in str(refusal.value)
    finally:
        await store.close()


async def test_tables_whose_names_are_damaged_are_said_to_be_damage(store_path: Path, clock: FakeClock) -> None:
    await filled(store_path, clock)
    whole = store_path.read_bytes()
    damaged = whole.replace(b"tableentriesentries", b"table\x94\x94triesentries", 1)
    damaged = damaged.replace(b"CREATE TABLE entries", b"CREATE TABLX entries", 1)
    store_path.write_bytes(damaged)
    with pytest.raises(StoreCorrupt) as refusal:
        await Store.open(store_path, clock=clock)
    assert_helpful(refusal.value)
    assert store_path.read_bytes() == damaged
    assert store_path not in {each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


async def test_what_cannot_be_read_at_the_start_is_let_go_of(
    store_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process too the store can be opened as soon as it is mended."""

    def broken(_: Connection) -> int:
        raise UnreadableRow("a row of it cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr("livery_ca.store.changes.last", broken)
        with pytest.raises(StoreCorrupt):
            await Store.open(store_path, clock=clock)
    await filled(store_path, clock)
    await assert_intact(store_path, clock)


async def test_another_programs_database_is_refused_and_left_alone(store_path: Path, clock: FakeClock) -> None:
    store_path.parent.mkdir(mode=0o700)
    other = sqlite3.connect(store_path)
    other.execute("CREATE TABLE recipes (name)")
    other.commit()
    other.close()
    with pytest.raises(StoreCorrupt, match="another program"):
        await Store.open(store_path, clock=clock)
    other = sqlite3.connect(store_path)
    assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("recipes",)]
    other.close()


async def test_a_newer_store_is_refused_and_left_alone(store_path: Path, clock: FakeClock) -> None:
    await filled(store_path, clock)
    other = sqlite3.connect(store_path)
    other.execute("UPDATE alembic_version SET version_num = '9999'")
    other.commit()
    with pytest.raises(StoreNewer) as refusal:
        await Store.open(store_path, clock=clock)
    assert_helpful(refusal.value)
    other.execute("UPDATE alembic_version SET version_num = '0001'")
    other.commit()
    other.close()
    await assert_intact(store_path, clock)


async def test_a_state_path_that_cannot_be_a_directory_is_said_so(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileNotWritten) as refusal:
        await Store.open(tmp_path / "file" / "ca.sqlite", clock=clock)
    assert_helpful(refusal.value)


async def test_a_database_that_is_a_directory_is_said_so(store_path: Path, clock: FakeClock) -> None:
    store_path.mkdir(parents=True)
    with pytest.raises(StoreUnwritable):
        await Store.open(store_path, clock=clock)


def limit_pages(store: Store, more: int) -> None:
    """Let the writer's database grow by so many pages only: to SQLite, that is a full disk."""
    with store._database._engines[0].begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + more}")


async def test_a_full_disk_fails_the_write_loses_nothing_and_passes(store: Store) -> None:
    """The writes that did not fit are refused, those before stand, and once there is room all goes on."""
    await store.entries.create(entry("a"))
    limit_pages(store, 2)
    with pytest.raises(StoreFull) as refusal:
        await store.entries.create(entry("big", hint="x" * 100_000))
    assert_helpful(refusal.value)
    assert store.fault is refusal.value
    assert await store.entries.get("a") is not None
    assert await store.entries.get("big") is None
    limit_pages(store, 1000)
    await store.entries.create(entry("big", hint="x" * 100_000))
    assert store.fault is None


async def test_a_database_that_took_the_transaction_back_itself_is_told_with_its_own_reason(store: Store) -> None:
    """Its savepoints went with it: to ask for one would hide why."""

    def failing(connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("SELECT what_is_not_there")

    with pytest.raises(StoreUnavailable, match="what_is_not_there"):
        await store._database.write(failing)
    await store.entries.create(entry("a"))


async def test_one_writes_error_takes_none_of_its_group_along(store: Store) -> None:
    """Fifty writes committed together, every fifth refused: the others stand."""
    await store.entries.create(entry("taken", "unix:uid:999"))
    made = [
        entry("taken" if i % 5 == 0 else f"e{i}", f"unix:uid:{i}", spiffe_id=entry(f"e{i}").spiffe_id)
        for i in range(50)
    ]
    results = await asyncio.gather(*(store.entries.create(e) for e in made), return_exceptions=True)
    assert [isinstance(r, EntryIdTaken) for r in results] == [i % 5 == 0 for i in range(50)]
    assert await store.entries.count() == 41


async def test_writes_that_wait_together_are_committed_together(store: Store) -> None:
    """Group commit: the number of commits is far below the number of writes."""
    commits = 0
    committing = store.changes.committing

    def counting(connection: object) -> object:
        nonlocal commits
        commits += 1
        return committing(connection)  # type: ignore[arg-type]

    store._database._writer._committed = counting  # type: ignore[assignment]
    await asyncio.gather(*(store.entries.create(entry(f"e{i}")) for i in range(200)))
    assert commits <= 20


async def test_a_write_whose_caller_left_is_carried_out(store: Store) -> None:
    """Cancelled after it was handed over: it stands all the same, so nothing is half known."""
    writing = asyncio.create_task(store.entries.create(entry("a")))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await store.entries.create(entry("b"))
    assert await store.entries.get("a") is not None


def test_a_write_that_ends_after_the_loop_ends_quietly(store_path: Path, clock: FakeClock) -> None:
    """A process that is cut off while a commit waits for its disk: a traceback would hide why it ended."""
    begun, held = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        begun.set()
        held.wait(30)

    async def leave() -> Store:
        store = await Store.open(store_path, clock=clock)
        writing = asyncio.create_task(store._database.write(slow))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        return store

    store = asyncio.run(leave())
    held.set()
    asyncio.run(store.close())


async def test_a_closed_store_says_so(store_path: Path, clock: FakeClock) -> None:
    store = await Store.open(store_path, clock=clock)
    await store.close()
    with pytest.raises(StoreClosed):
        await store.entries.create(entry("a"))
    with pytest.raises(StoreClosed):
        await store.entries.get("a")
    await store.close()


async def test_readers_cannot_write(store: Store) -> None:
    """The reading connections refuse, whatever a statement tries."""
    with pytest.raises(LiveryError):
        await store._database.read(lambda c: c.execute(insert(schema.facts).values(name="x", value="y")))


async def test_a_commit_is_synchronised_to_the_disk(store: Store) -> None:
    """WAL with synchronous=FULL (2): durable before the reply."""

    def pragmas(connection: object) -> tuple[object, ...]:
        run = connection.exec_driver_sql  # type: ignore[attr-defined]
        return tuple(run(f"PRAGMA {p}").scalar_one() for p in ("journal_mode", "synchronous", "foreign_keys"))

    assert await store._database.write(pragmas) == ("wal", 2, 1)


async def test_the_migrations_make_exactly_the_schema(store: Store) -> None:
    """What a migrated store has is what the statements are written against."""

    def difference(connection: object) -> list[object]:
        return compare_metadata(MigrationContext.configure(connection), schema.metadata)  # type: ignore[arg-type]

    assert await store._database.write(difference) == []


async def test_a_fault_of_ours_fails_its_group_and_the_writer_lives_on(store: Store) -> None:
    """Were its thread to end, every write from then on would wait for ever."""
    committing = store.changes.committing

    def broken(_: object) -> None:
        store._database._writer._committed = committing
        raise ZeroDivisionError

    store._database._writer._committed = broken
    with pytest.raises(StoreUnavailable) as refusal:
        await store.entries.create(entry("a"))
    assert_helpful(refusal.value)
    assert await store.entries.get("a") is None
    await store.entries.create(entry("a"))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_READONLY, StoreUnwritable),
        (sqlite3.SQLITE_READONLY_DIRECTORY, StoreUnwritable),
        (sqlite3.SQLITE_CANTOPEN, StoreUnwritable),
        (sqlite3.SQLITE_BUSY, StoreLocked),
        (sqlite3.SQLITE_CORRUPT, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable),
        (None, StoreUnavailable),
    ],
)
def test_each_error_of_the_driver_is_said_in_our_words(code: int | None, expected: type[StoreError]) -> None:
    """By SQLite's result code, extended ones included, since its texts change."""
    original = sqlite3.OperationalError("told by the driver")
    if code is not None:
        original.sqlite_errorcode = code
    error = translate(OperationalError("SELECT 1", {"secret": "s"}, original), Path("/state/ca.sqlite"))
    assert type(error) is expected
    assert error.why == "told by the driver"
    assert_helpful(error)


async def test_a_copy_of_the_file_is_a_backup(store: Store, store_path: Path, tmp_path: Path, clock: FakeClock) -> None:
    """After a close the one file holds everything."""
    await store.entries.create(entry("a"))
    await store.close()
    copy = tmp_path / "copy" / "ca.sqlite"
    copy.parent.mkdir(mode=0o700)
    shutil.copy(store_path, copy)
    await assert_intact(copy, clock)
