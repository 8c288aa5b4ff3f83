"""An authority in a process of its own that ends itself by SIGKILL at a given step, or runs until somebody kills it.

    python -m tests.faults.crashing_ca <state> <step>    one sound batch, then a join that dies at the step
    python -m tests.faults.crashing_ca <state> -         batches without end

Each serial that was answered is a line on stdout, written after the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from livery.identity import SpiffeId
from livery.runtime.clock import SystemClock
from livery_ca.certificates.profile import Profile, PublicKey
from livery_ca.issuance.request import Issued, IssueRequest
from livery_ca.model import JoinToken, Node
from livery_ca.store.writes import AttestNode, SpendToken, Write
from tests.unit.ca.house import TD, House, house, workload

TOKEN = "crash-test-token"
AGENT = SpiffeId.of(TD, f"/spire/agent/join_token/{TOKEN}")
BATCH = 5


def joining(key: PublicKey, key_hash: bytes) -> IssueRequest:
    """What AttestAgent asks for: the token is spent and the node written with the record."""

    def on_record(issued: Issued) -> tuple[Write, ...]:
        node = Node(AGENT, "join_token", str(issued.serial), issued.not_after, can_reattest=False)
        return SpendToken(TOKEN, key_hash, SystemClock().now()), AttestNode(node)

    return workload(profile=Profile.AGENT, spiffe_id=AGENT, public_key=key, on_record=on_record)


def told(answers: list[Issued]) -> None:
    for answer in answers:
        sys.stdout.write(f"{answer.serial:x}\n")
    sys.stdout.flush()


async def once(ca: House, arm: asyncio.Event, state: Path) -> None:
    await ca.store.tokens.create(JoinToken(TOKEN, SystemClock().now() + timedelta(hours=1)))
    told(await ca.issue(*(workload() for _ in range(BATCH))))
    arm.set()
    key = load_pem_public_key((state / "agent.pem").read_bytes())
    told(await ca.issue(joining(key, b"k" * 32)))  # type: ignore[arg-type]


async def for_ever(ca: House) -> None:
    async def one() -> None:
        while True:
            told(await ca.issue(*(workload() for _ in range(BATCH))))

    await asyncio.gather(*(one() for _ in range(4)))


async def main(state: Path, step: str) -> None:
    arm = asyncio.Event()

    def die(reached: str) -> None:
        if arm.is_set() and reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    async with house(state, SystemClock(), checkpoint=die) as ca:
        await (for_ever(ca) if step == "-" else once(ca, arm, state))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
