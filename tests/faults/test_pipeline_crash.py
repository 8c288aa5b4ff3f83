"""kill -9 at each step of the pipeline, and at any moment under load: nothing is lost, doubled or unaccounted for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from livery.identity import verify_x509
from livery.runtime.clock import SystemClock
from livery_ca.certificates import assemble
from livery_ca.certificates.assemble import SigningParty
from livery_ca.issuance.pipeline import STEPS
from livery_ca.issuance.request import Issued, Refused
from livery_ca.ledger import merkle
from livery_ca.model import Outcome, Settled
from livery_ca.store.errors import TokenUsed
from tests.faults.crashing_ca import AGENT, BATCH, TOKEN, joining
from tests.pki import new_key
from tests.unit.ca.house import House, house, workload

ROOT = Path(__file__).parents[2]
# Where the record was not committed when the process died, nobody can know whether the signature left it.
UNRECORDED = {"before:journal-commit", "after:journal", "after:sign", "after:verify", "before:record-commit"}
JOURNALLED = {"after:journal", "after:sign", "after:verify", "before:record-commit", "after:record"}


def start(state: Path, step: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.crashing_ca", str(state), step]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def serials(output: str) -> set[int]:
    """The serials that were answered. (Lines of the log go to stdout too, and begin otherwise.)"""
    words = [line.strip() for line in output.splitlines()]
    return {int(word, 16) for word in words if word and " " not in word}


async def journal(ca: House) -> list[Settled]:
    return list((await ca.store.journal.list()).items)


def assert_verifies(ca: House, line: Settled) -> None:
    assert line.signature is not None
    authority = SigningParty.of(ca.authorities.x509_signer().certificate)
    certificate = x509.load_der_x509_certificate(assemble.join(line.intent.tbs, authority, line.signature))
    assert verify_x509([certificate], ca.authorities.bundles(), SystemClock().now()).id == line.intent.spiffe_id


async def assert_accounted_for(ca: House, answered: set[int]) -> None:
    """What must hold after any crash, whenever it came.

    1. Every intent has an outcome. 2. Whatever was answered is on record as issued. 3. What is on record as issued
    verifies, put together from the record. 4. The log has a leaf for each intent, in order and without a gap. 5. No
    serial stands twice, in the journal or in what is issued from now on.
    """
    lines = await journal(ca)
    assert all(line.outcome in {Outcome.ISSUED, Outcome.UNKNOWN} for line in lines)  # 1
    issued = {line.intent.serial for line in lines if line.outcome is Outcome.ISSUED}
    assert answered <= issued  # 2
    for line in lines:  # 3
        assert (line.signature is not None) == (line.outcome is Outcome.ISSUED)
        if line.signature is not None:
            assert_verifies(ca, line)
    assert [line.intent.index for line in lines] == list(range(len(lines)))  # 4
    hashes = await ca.store.leaves.hashes(0, await ca.store.leaves.size())
    assert list(hashes) == [merkle.leaf_hash(line.intent.tbs) for line in lines]
    known = [line.intent.serial for line in lines]
    assert len(set(known)) == len(known)  # 5
    new = await ca.issue(workload(), workload())
    assert not {i.serial for i in new} & set(known)
    assert [i.log_index for i in new] == [len(lines), len(lines) + 1]


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step_the_authority_accounts_for_everything_and_the_agent_joins(
    tmp_path: Path, step: str
) -> None:
    """The agent whose reply was lost asks again with the same key, and gets in; a stranger with its token does not."""
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    key = new_key("P-256").public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (state / "agent.pem").write_bytes(pem)
    process = start(state, step)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    answered = serials(output)
    assert len(answered) == BATCH

    async with house(state, SystemClock()) as ca:
        lines = await journal(ca)
        assert len(lines) == BATCH + (step in JOURNALLED)
        unknown = [line for line in lines if line.outcome is Outcome.UNKNOWN]
        assert len(unknown) == (step in UNRECORDED & JOURNALLED)
        assert f'livery_ca_intents_unissued{{outcome="unknown"}} {len(unknown)}.0' in ca.metrics.render().decode()
        node, token = await ca.store.nodes.get(AGENT), await ca.store.tokens.get(TOKEN)
        assert token is not None
        recorded = step == "after:record"
        assert (node is not None, token.bound_key is not None) == (recorded, recorded)  # together or not at all
        await assert_accounted_for(ca, answered)

        (again,) = await ca.issuer.issue([joining(key, b"k" * 32)])
        assert isinstance(again, Issued)
        node = await ca.store.nodes.get(AGENT)
        assert node is not None
        assert node.serial == str(again.serial)
        (stranger,) = await ca.issuer.issue([joining(new_key("P-256").public_key(), b"x" * 32)])
        assert isinstance(stranger, Refused)
        assert isinstance(stranger.error, TokenUsed)
        for line in unknown:
            after = await ca.store.journal.get(line.intent.serial)
            assert after is not None
            assert after.outcome is Outcome.UNKNOWN


async def test_killed_under_load_again_and_again_nothing_answered_is_lost(tmp_path: Path) -> None:
    """Four callers at once, killed after so many answers that it falls into different moments each time."""
    state = tmp_path / "s"
    answered: set[int] = set()
    for lines in (1, 40, 77, 123):
        process = start(state, "-")
        assert process.stdout is not None
        seen = 0
        while seen < lines:
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            answered |= serials(line)
            seen = len(answered)
        process.kill()
        rest, _ = process.communicate(timeout=60)
        answered |= serials(rest if rest.endswith("\n") else rest.rpartition("\n")[0])
    async with house(state, SystemClock()) as ca:
        await assert_accounted_for(ca, answered)
