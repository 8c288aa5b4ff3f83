"""What the `unix` attestor says of real processes, and that it never says it of the wrong one (hazard 13)."""

from __future__ import annotations

import asyncio
import grp
import hashlib
import os
import pwd
import queue
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from livery.identity import Selector
from livery.runtime.caller import PeerProcess
from livery.runtime.clock import SystemClock
from livery_agent.attest.workload.attestation import WorkloadAttestation
from livery_agent.attest.workload.unix import (
    MAX_HASHES,
    THREADS_PER_USER,
    Credentials,
    ProgramHashes,
    UnixAttestor,
    _File,
)
from livery_agent.errors import WorkloadChanged, WorkloadUnattested
from tests.fakes.clock import FakeClock, settle
from tests.fakes.processes import Peer, connected

BIG = 1 << 40
CAT = "/bin/cat"


@pytest.fixture
def attestor() -> Iterator[UnixAttestor]:
    attestor = UnixAttestor(BIG, SystemClock())
    yield attestor
    attestor.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with connected() as peer:
        yield peer


def of(selectors: frozenset[Selector], name: str) -> set[str]:
    return {s.value.partition(":")[2] for s in selectors if s.value.partition(":")[0] == name}


async def test_a_process_is_described_by_user_group_path_and_hash(attestor: UnixAttestor, peer: Peer):
    selectors = await attestor.attest(peer.process)
    program = Path(sys.executable).resolve()
    assert {s.type for s in selectors} == {"unix"}
    assert of(selectors, "uid") == {str(os.geteuid())}
    assert of(selectors, "user") == {pwd.getpwuid(os.geteuid()).pw_name}
    assert of(selectors, "gid") == {str(os.getegid())}
    assert of(selectors, "group") == {grp.getgrgid(os.getegid()).gr_name}
    assert of(selectors, "path") == {str(program)}
    assert of(selectors, "sha256") == {hashlib.sha256(program.read_bytes()).hexdigest()}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_users_groups_and_supplementary_groups_are_those_of_the_process(attestor: UnixAttestor):
    with connected("/usr/bin/python3", user=65534, group=65534, extra_groups=[7, 8]) as peer:
        selectors = await attestor.attest(peer.process)
    assert of(selectors, "uid") == {"65534"}
    assert of(selectors, "gid") == {"65534"}
    assert of(selectors, "supplementary_gid") == {"7", "8"}
    assert of(selectors, "supplementary_group") == {grp.getgrgid(7).gr_name, grp.getgrgid(8).gr_name}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_hazard_13_where_real_and_effective_ids_differ_the_effective_ones_are_said(attestor: UnixAttestor):
    """As of a set-user-ID program, or a daemon that put its rights aside for a while."""
    with connected(first="import os, socket; os.setgroups([]); os.setegid(65533); os.seteuid(65534)") as peer:
        selectors = await attestor.attest(peer.process)
    assert of(selectors, "uid") == {"65534"}
    assert of(selectors, "gid") == {"65533"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_a_user_without_a_name_still_has_a_number(attestor: UnixAttestor):
    with connected("/usr/bin/python3", user=54321, group=54321, extra_groups=[]) as peer:
        selectors = await attestor.attest(peer.process)
    assert of(selectors, "uid") == {"54321"}
    assert of(selectors, "user") == set()
    assert of(selectors, "group") == set()


async def test_hazard_13_a_process_that_ended_is_not_described(attestor: UnixAttestor, peer: Peer):
    peer.end()
    with pytest.raises(WorkloadChanged):
        await attestor.attest(peer.process)


async def test_hazard_13_a_number_that_now_belongs_to_another_process_is_not_described(attestor: UnixAttestor):
    """As if the caller had died and its number been given to a trusted process before we looked."""
    with connected() as caller, connected() as trusted:
        recycled = replace(caller.process, pid=trusted.process.pid)
        with pytest.raises(WorkloadChanged):
            await attestor.attest(recycled)


async def test_hazard_13_a_process_that_became_a_trusted_program_is_not_described_as_that(
    attestor: UnixAttestor, peer: Peer
):
    peer.tell(f"become {CAT}")
    peer.tell("are you there?")
    assert peer.popen.stdout is not None
    assert peer.popen.stdout.readline() == b"are you there?\n", "the exec is done"
    with pytest.raises(WorkloadChanged):
        await attestor.attest(peer.process)


async def test_hazard_13_a_process_that_changed_its_effective_user_is_not_described(attestor: UnixAttestor, peer: Peer):
    with pytest.raises(WorkloadChanged):
        await attestor.attest(replace(peer.process, uid=peer.process.uid + 1))


async def test_hazard_13_a_parent_that_left_its_connection_to_a_child_is_not_described(
    attestor: UnixAttestor, peer: Peer
):
    peer.tell("fork")
    assert peer.popen.stdout is not None
    child = int(peer.popen.stdout.readline())
    peer.popen.wait()
    with pytest.raises(WorkloadChanged):
        await attestor.attest(peer.process)
    os.kill(child, 9)


async def test_hazard_13_a_process_that_ends_while_it_is_looked_at_is_not_described(peer: Peer):
    """What was read of /proc before may be of this process, and what was read after of its number's next holder."""

    class Interrupted(UnixAttestor):
        def _pairs(self, pid: int, credentials: Credentials) -> Iterator[tuple[str, str | None]]:
            yield from super()._pairs(pid, credentials)
            peer.end()

    attestor = Interrupted(0, SystemClock())
    with pytest.raises(WorkloadChanged):
        await attestor.attest(peer.process)
    attestor.close()


async def test_hazard_13_a_process_that_cannot_be_looked_at_because_it_ended_has_changed(peer: Peer):
    """What cannot be looked at leaves the other methods their say; what has changed leaves nobody any."""

    class Interrupted(UnixAttestor):
        def _pairs(self, pid: int, credentials: Credentials) -> Iterator[tuple[str, str | None]]:
            peer.end()
            raise ProcessLookupError(pid)

    attestor = Interrupted(0, SystemClock())
    with pytest.raises(WorkloadChanged):
        await WorkloadAttestation((Knows(), attestor)).selectors(peer.process)
    attestor.close()


async def test_one_users_big_programs_hold_up_nobody_elses_processes(peer: Peer):
    """A program that is changed again and again is hashed for every call; and calls cost nothing."""
    may_end = threading.Event()

    class Slow(UnixAttestor):
        def _attest(self, process: PeerProcess) -> frozenset[Selector]:
            if process.uid == 1001:
                may_end.wait(20)
            return frozenset({Selector("unix", f"uid:{process.uid}")})

    attestor = Slow(0, SystemClock())
    calls = [asyncio.create_task(attestor.attest(replace(peer.process, uid=1001))) for _ in range(100)]
    try:
        await settle()
        async with asyncio.timeout(10):
            assert of(await attestor.attest(replace(peer.process, uid=1002)), "uid") == {"1002"}
        assert not any(call.done() for call in calls)
    finally:
        may_end.set()
        await asyncio.gather(*calls)
        attestor.close()


async def test_a_thread_counts_for_its_user_until_it_is_done_also_once_its_caller_has_left(peer: Peer):
    """Otherwise who calls and leaves, again and again, has all of them; and they look at descriptors long closed."""
    may_end, begun, seen = threading.Event(), threading.Semaphore(0), queue.SimpleQueue[bool]()

    class Slow(UnixAttestor):
        def _attest(self, process: PeerProcess) -> frozenset[Selector]:
            begun.release()
            may_end.wait(20)
            seen.put(os.fstat(process.pidfd).st_ino == inode)
            return frozenset()

    attestor, pidfd = Slow(0, SystemClock()), os.dup(peer.process.pidfd)
    inode = os.fstat(pidfd).st_ino
    try:
        for _ in range(THREADS_PER_USER + 3):
            call = asyncio.create_task(attestor.attest(replace(peer.process, pidfd=pidfd)))
            await settle()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        os.close(pidfd)  # as the connection does, when it and its calls are gone
        assert [begun.acquire(timeout=10) for _ in range(THREADS_PER_USER)] == [True] * THREADS_PER_USER
        await settle()
        assert not begun.acquire(blocking=False), "the others never began"
    finally:
        may_end.set()
    async with asyncio.timeout(10):
        await attestor.attest(peer.process)
    assert all(seen.get(timeout=10) for _ in range(THREADS_PER_USER + 1))
    attestor.close()


async def test_a_program_that_was_replaced_on_disk_has_a_hash_and_no_path(attestor: UnixAttestor, tmp_path: Path):
    """Its path now leads to another file; its hash is of what runs."""
    copy = tmp_path / "python"
    shutil.copy(Path("/usr/bin/python3").resolve(), copy)
    with connected(copy) as peer:
        digest = hashlib.sha256(copy.read_bytes()).hexdigest()
        copy.unlink()
        selectors = await attestor.attest(peer.process)
    assert of(selectors, "path") == set()
    assert of(selectors, "sha256") == {digest}


async def test_a_program_larger_than_the_limit_is_not_hashed(peer: Peer):
    for limit in (0, 1000):
        attestor = UnixAttestor(limit, SystemClock())
        assert of(await attestor.attest(peer.process), "sha256") == set()
        attestor.close()


def test_a_hash_is_remembered_for_as_long_as_the_file_is_the_same(peer: Peer):
    hashes = ProgramHashes(BIG, SystemClock())
    assert hashes.of(peer.process.pid) == hashes.of(peer.process.pid)
    assert len(hashes._known) == 1


def test_a_file_changed_a_moment_ago_is_hashed_again_each_time(tmp_path: Path):
    """File times are coarser than writes: what was written twice within a tick would look unchanged."""
    copy = tmp_path / "python"
    shutil.copy(Path("/usr/bin/python3").resolve(), copy)
    os.utime(copy, (0, 0))  # its owner may date it as he likes
    with connected(copy) as peer:
        just_now = ProgramHashes(BIG, FakeClock(datetime.now(UTC)))
        later = ProgramHashes(BIG, FakeClock(datetime.now(UTC) + timedelta(seconds=10)))
        assert just_now.of(peer.process.pid) == later.of(peer.process.pid)
    assert len(just_now._known) == 0
    assert len(later._known) == 1


def test_no_more_hashes_are_remembered_than_fit():
    """Any user may run any number of programs."""
    hashes = ProgramHashes(BIG, SystemClock())
    for inode in range(MAX_HASHES + 10):
        hashes._remember(_File(1, inode, 0, 0, 0), str(inode))
    assert len(hashes._known) == MAX_HASHES
    assert str(MAX_HASHES + 9) in hashes._known.values(), "the oldest make room"


class Broken:
    """An attestor that cannot say anything."""

    method = "broken"

    async def attest(self, process: object) -> frozenset[Selector]:
        raise WorkloadUnattested("no idea")


class Knows:
    """An attestor that knows one thing."""

    method = "knows"

    async def attest(self, process: object) -> frozenset[Selector]:
        return frozenset({Selector.parse("knows:this")})


class Hangs:
    """An attestor whose source does not answer."""

    method = "hangs"

    async def attest(self, process: object) -> frozenset[Selector]:
        import asyncio

        await asyncio.Event().wait()
        raise AssertionError


async def test_what_one_method_cannot_say_takes_nothing_from_the_others(peer: Peer, attestor: UnixAttestor):
    attestation = WorkloadAttestation((Broken(), Knows(), Hangs(), attestor), timedelta(seconds=0.5))
    found = await attestation.selectors(peer.process)
    assert Selector.parse("knows:this") in found
    assert of(found, "uid")


async def test_when_no_method_can_say_anything_that_is_an_error_and_not_an_empty_answer(peer: Peer):
    with pytest.raises(WorkloadUnattested, match="workload attestation failed"):
        await WorkloadAttestation((Broken(),)).selectors(peer.process)
    with pytest.raises(WorkloadUnattested):
        await WorkloadAttestation(()).selectors(peer.process)


async def test_a_changed_process_is_refused_whatever_other_methods_say(peer: Peer, attestor: UnixAttestor):
    peer.end()
    with pytest.raises(WorkloadChanged):
        await WorkloadAttestation((Knows(), attestor)).selectors(peer.process)
