"""What a node remembers, and how it is put on disk (hazard 22)."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from livery.identity import TrustDomain
from livery.runtime.files import FileNotWritten, NotPrivate
from livery_agent.errors import StateUnreadable
from livery_agent.node.keys import key_der, new_key
from livery_agent.node.seal import BUNDLE_FILE, STATE_FILE, Seal
from livery_agent.node.state import NodeState, NodeSvid, decode, encode
from livery_agent.schedule import Renewal
from tests.fakes.clock import settle
from tests.pki import NOW, TestCa

TD = TrustDomain("example.org")
CA = TestCa(TD)


def state(**changes: object) -> NodeState:
    svid = CA.issue("/spire/agent/x509pop/abc")
    node = NodeSvid(svid, Renewal(NOW, svid.not_after, 0.05), reattestable=True)
    return replace(NodeState(TD, node, new_key()), **changes)


def test_a_state_reads_back_as_it_was_written():
    before = state()
    after = decode(encode(before), TD)
    assert after.node == before.node
    assert after.node is not None
    assert before.node is not None
    assert after.node.svid.key_der() == before.node.svid.key_der()
    assert after.next_key is not None
    assert before.next_key is not None
    assert key_der(after.next_key) == key_der(before.next_key)


def test_the_jitter_and_the_receipt_survive_a_restart():
    """Otherwise a crash-looping agent would draw again and again, and renew at the early edge."""
    after = decode(encode(state()), TD)
    assert after.node is not None
    assert (after.node.renewal.jitter, after.node.renewal.received_at) == (0.05, NOW)


def test_the_end_of_an_intermediate_is_the_svids_end_after_a_restart_too():
    """Otherwise a node would wait for the half of a life that its chain does not have."""
    half = CA.intermediate(ttl=timedelta(minutes=30))
    svid = half.issue("/spire/agent/x509pop/abc", timedelta(hours=1))
    end = half.certificate.not_valid_after_utc
    assert end < svid.not_after
    node = NodeSvid(svid, Renewal(NOW, end), reattestable=True)
    after = decode(encode(NodeState(TD, node)), TD).node
    assert after is not None
    assert after.renewal.expires_at == end


def test_an_empty_state_reads_back():
    assert decode(encode(NodeState(TD)), TD) == NodeState(TD)


@pytest.mark.parametrize(
    "spoiled",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": 2, "trust_domain": "example.org", "node": null, "next_key": null}',
        b'{"format": 1, "trust_domain": "EXAMPLE", "node": null, "next_key": null}',
        b'{"format": 1, "trust_domain": "example.org", "node": 7, "next_key": null}',
        b'{"format": 1, "trust_domain": "example.org", "node": null, "next_key": "%%"}',
        b'{"format": 1, "trust_domain": "example.org", "node": null, "next_key": "AAAA"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_spoiled_state_is_refused_and_not_started_over(spoiled: bytes):
    with pytest.raises(StateUnreadable):
        decode(spoiled, TD)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("received_at", "2026-11-02"),
        ("received_at", "yesterday"),
        ("reattestable", "yes"),
        ("jitter", "much"),
        ("jitter", float("nan")),
        ("jitter", 7.0),
        ("chain", "AAAA"),
        ("key", ""),
    ],
)
def test_a_state_with_one_wrong_member_is_refused(member: str, value: object):
    document = json.loads(encode(state()))
    document["node"][member] = value
    with pytest.raises(StateUnreadable):
        decode(json.dumps(document).encode(), TD)


def test_a_key_that_is_not_the_leafs_is_refused():
    mixed = json.loads(encode(state()))
    mixed["node"]["key"] = json.loads(encode(state()))["node"]["key"]
    with pytest.raises(StateUnreadable):
        decode(json.dumps(mixed).encode(), TD)


@pytest.mark.parametrize("spoiled", [bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d030107")])
def test_a_key_of_which_a_byte_of_its_kind_has_changed_is_refused(spoiled: bytes):
    """A kind of key, and a curve, that nobody knows: the parser's own error for that is no ValueError."""
    document = json.loads(encode(state()))
    der = base64.b64decode(document["next_key"])
    assert spoiled in der
    document["next_key"] = base64.b64encode(der.replace(spoiled, spoiled[:-1] + b"\x7e")).decode()
    with pytest.raises(StateUnreadable, match="not whole"):
        decode(json.dumps(document).encode(), TD)


def test_the_state_of_another_trust_domain_is_refused_by_name():
    with pytest.raises(StateUnreadable, match=r"example\.org"):
        decode(encode(state()), TrustDomain("other.test"))


def test_no_error_and_no_repr_shows_a_key():
    before = state()
    document = json.loads(encode(before))
    document["node"]["chain"] = "AAAA"
    with pytest.raises(StateUnreadable) as refused:
        decode(json.dumps(document).encode(), TD)
    secret = document["node"]["key"][40:80]
    assert secret not in f"{refused.value} {refused.value.why} {before!r}"
    assert refused.value.__cause__ is None, "a parser's words may quote what it read"


async def test_hazard_22_key_and_svid_are_one_file_of_the_owner_alone(tmp_path: Path):
    seal = Seal(tmp_path, TD)
    before = state()
    await seal.save(before)
    assert [p.name for p in tmp_path.iterdir()] == [STATE_FILE]
    assert stat.S_IMODE((tmp_path / STATE_FILE).stat().st_mode) == 0o600
    assert seal.load().node == before.node


async def test_an_agent_that_never_attested_has_an_empty_state(tmp_path: Path):
    seal = Seal(tmp_path, TD)
    assert seal.load() == NodeState(TD)
    assert seal.load_bundle() is None


async def test_a_state_others_could_read_is_not_used(tmp_path: Path):
    seal = Seal(tmp_path, TD)
    await seal.save(state())
    (tmp_path / STATE_FILE).chmod(0o644)
    with pytest.raises(NotPrivate):
        seal.load()


async def test_a_spoiled_file_is_named_with_what_to_do(tmp_path: Path):
    (tmp_path / STATE_FILE).touch(mode=0o600)
    with pytest.raises(StateUnreadable, match=STATE_FILE) as refused:
        Seal(tmp_path, TD).load()
    assert "move it away" in refused.value.fix
    (tmp_path / BUNDLE_FILE).touch(mode=0o600)
    with pytest.raises(StateUnreadable, match=BUNDLE_FILE) as refused:
        Seal(tmp_path, TD).load_bundle()
    assert "trust_bundle_path" in refused.value.fix, "it keeps its identity"


async def test_a_failed_write_leaves_the_old_state_whole(tmp_path: Path):
    seal = Seal(tmp_path, TD)
    before = state()
    await seal.save(before)
    target = tmp_path / STATE_FILE
    kept = target.read_bytes()
    target.unlink()
    target.mkdir()  # a rename over a directory fails, whoever we are
    with pytest.raises(FileNotWritten):
        await seal.save(state())
    target.rmdir()
    target.write_bytes(kept)
    target.chmod(0o600)
    assert seal.load().node == before.node


async def test_the_bundle_reads_back_with_its_sequence(tmp_path: Path):
    seal = Seal(tmp_path, TD)
    await seal.save_bundle(CA.bundle(sequence=7))
    loaded = seal.load_bundle()
    assert loaded is not None
    assert loaded.sequence == 7
    assert loaded.x509_authorities == CA.bundle().x509_authorities


class Held(ThreadPoolExecutor):
    """Threads that begin at once, and do their work only when they may."""

    def __init__(self) -> None:
        super().__init__(1)
        self.begun, self.may_work = threading.Event(), threading.Event()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def held() -> Any:
            self.begun.set()
            self.may_work.wait(10)
            return work(*args, **kwargs)

        return super().submit(held)


async def test_a_save_that_is_cancelled_ends_before_whoever_holds_the_lock_can_give_it_back(tmp_path: Path):
    """Otherwise the thread that writes could replace what the next agent has read or written in the meantime."""
    threads = Held()
    asyncio.get_running_loop().set_default_executor(threads)
    saving = asyncio.create_task(Seal(tmp_path, TD).save(state()))
    await settle()
    assert threads.begun.wait(10)
    saving.cancel()
    await settle()
    assert not saving.done()
    threads.may_work.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert (tmp_path / STATE_FILE).exists()
