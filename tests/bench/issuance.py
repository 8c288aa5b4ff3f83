"""Issuance as an agent meets it: `BatchNewX509SVID` over mTLS, through the front door of a real CA process.

Owns: one attested agent with one connection, on which several batches are always under way. The CA does all that it
does for any agent: entitlement, lint, journal and record with fsync, signature, verification. Its rate limits are
lifted, for they are there to keep one address from having more than this.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from livery.identity import TrustBundle, TrustDomain
from tests.bench.effort import Effort
from tests.bench.results import Result, measured
from tests.e2e.running import Up
from tests.fakes.node_agent import NodeAgent, new_csr, new_key

BATCHES = (1, 10, 100)
CALLERS = 4  # batches under way at once; as many connections as OpenBao is given, and more make neither faster
Wanted = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Requests:
    """The same hundred requests for both: in DER for us, in PEM for OpenBao."""

    ders: tuple[bytes, ...]

    @classmethod
    def new(cls, trust_domain: str) -> Requests:
        """Requests for a hundred new keys."""
        names = [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/bench/{n}") for n in range(max(BATCHES))]
        return cls(tuple(new_csr(new_key(), name) for name in names))

    def pems(self) -> list[str]:
        """In PEM."""
        return [x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode() for der in self.ders]


async def issuance(up: Up, requests: Requests, directory: Path, effort: Effort) -> list[Result]:
    """SVIDs a second for each size of batch."""
    trust_domain = TrustDomain(up.ready["trust_domain"])
    bundle = TrustBundle.from_pem(trust_domain, up.livery("bundle", "show", "--format", "pem").stdout.encode())
    token = json.loads(up.livery("token", "create", "-o", "json").stdout)["token"]
    async with NodeAgent(up.ready["ca_address"], bundle, directory / "run") as agent:
        await agent.join(token)
        _register(up, str(agent.id), len(requests.ders), directory)
        entries = sorted(await agent.sync(), key=lambda entry: int(entry.spiffe_id.path.rpartition("/")[2]))
        wanted = [(entry.id, der) for entry, der in zip(entries, requests.ders, strict=True)]
        return [await _batches(agent, wanted[:size], effort) for size in BATCHES]


def _register(up: Up, parent: str, count: int, directory: Path) -> None:
    table = '[[entry]]\nspiffe_id = "{id}"\nparent_id = "{parent}"\nselectors = ["unix:user:bench-{n}"]\n'
    domain = f"spiffe://{up.ready['trust_domain']}"
    file = directory / "entries.toml"
    file.write_text("\n".join(table.format(id=f"{domain}/bench/{n}", parent=parent, n=n) for n in range(count)))
    applied = up.livery("entry", "apply", "-f", str(file))
    if applied.returncode != 0:
        raise RuntimeError(applied.stderr)


async def _batches(agent: NodeAgent, wanted: Wanted, effort: Effort) -> Result:
    await _rate(agent, wanted, effort.seconds / 4)  # first use of the connection, of the code, of the database
    repeats = [await _rate(agent, wanted, effort.seconds) for _ in range(effort.repeats)]
    return measured(f"issuance_batch_{len(wanted)}", "svid/s", repeats)


async def _rate(agent: NodeAgent, wanted: Wanted, seconds: float) -> float:
    began = time.monotonic()
    counts = await asyncio.gather(*(_ask(agent, wanted, began + seconds) for _ in range(CALLERS)))
    return sum(counts) / (time.monotonic() - began)


async def _ask(agent: NodeAgent, wanted: Wanted, end: float) -> int:
    issued = 0
    while time.monotonic() < end:
        for result in await agent.batch_new(wanted):
            if result.status.code != 0:
                raise RuntimeError(f"an item was refused: {result.status.message}")
            issued += 1
    return issued
