"""`python -m tests.bench`: measure, write `build/bench.json`, and show the figures.

Everything runs on this machine, one after the other, in one run: our system by `livery up` as a user starts it, then
the peers. Progress goes to standard error, the table to standard output.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import openbao, openssl
from tests.bench.decisions import decisions
from tests.bench.effort import FULL, QUICK, Effort
from tests.bench.front_door import front_door
from tests.bench.issuance import CALLERS, Requests, issuance
from tests.bench.results import ROOT, Result, document, measured, write
from tests.bench.workload_api import first_svid, memory_of_a_stream
from tests.e2e.running import Up
from tests.e2e.workloads import admit

# What one address may ask of a CA in a second is bounded; a bench asks for all there is.
_NO_LIMITS = {f"LIVERY_CA__LIMITS__{name}": "0" for name in ("ATTESTATION", "X509_SIGNING", "JWT_SIGNING")}


def main() -> int:
    """Measure and write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure, and write build/bench.json.")
    parser.add_argument("--quick", action="store_true", help="little of everything: shows the form, not the speed")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json", help="where to write")
    wanted = parser.parse_args()
    effort = QUICK if wanted.quick else FULL
    with tempfile.TemporaryDirectory(prefix="livery-bench-") as directory:
        results = uvloop.run(measure(Path(directory), effort))
    versions = {"openssl": openssl.version(), "openbao": openbao.version()}
    write(wanted.out, document(results, versions))
    show(results)
    say(f"written to {wanted.out}")
    return 0


def say(what: str) -> None:
    """Progress, for whoever waits."""
    print(what, file=sys.stderr, flush=True)


async def measure(directory: Path, effort: Effort) -> list[Result]:
    """All figures, in the order of the table."""
    say("openssl speed ecdsap256 …")
    signing = _openssl(effort)
    with running(directory) as up:
        requests = Requests.new(up.ready["trust_domain"])
        say("BatchNewX509SVID …")
        issued = await issuance(up, requests, directory, effort)
        say("AuthZEN …")
        decided = decisions(
            Path(up.ready["policy_socket"].removeprefix("unix:")), up.ready["pids"]["policy"], question(up), effort
        )
        say("Workload API …")
        served = await workload_api(up, effort)
    say("the front door …")
    through = await front_door(effort)
    say("OpenBao pki/sign …")
    signed = _openbao(directory, requests, effort)
    beside = [
        each.beside(f"{each.name}_vs_{short}", peer)
        for each in issued
        for short, peer in (("openssl", signing), ("openbao", signed))
    ]
    return [*beside, *served, *decided, *through]


@contextmanager
def running(directory: Path) -> Iterator[Up]:
    """Our whole system but for the demo services, without rate limits."""
    os.environ.update(_NO_LIMITS)
    up = Up(directory / "state", ("--no-demo", "--svid-ttl", "1h")).start()
    try:
        yield up
    finally:
        up.stop()


def question(up: Up) -> dict[str, object]:
    """A call that the demo's policy allows."""
    domain = f"spiffe://{up.ready['trust_domain']}"
    http = {"method": "GET", "path": "/stock/apple", "host": "localhost", "headers": {}}
    return {
        "subject": {"type": "spiffe", "id": f"{domain}/orders"},
        "resource": {"type": "service", "id": f"{domain}/inventory"},
        "action": {"name": "http:GET"},
        "context": {"http": http},
    }


async def workload_api(up: Up, effort: Effort) -> list[Result]:
    """What this process sees of the Workload API."""
    admit(up, "/bench")

    def fresh_agent() -> int:
        known = len(up.of("recovered"))
        pid = up.of("recovered")[-1]["pid"] if known else up.ready["pids"]["agent"]
        os.kill(pid, 15)
        return int(up.wait_for(lambda event: event["event"] == "recovered" and event["what"] == "agent", 60)["pid"])

    address = up.ready["spiffe_endpoint_socket"]
    return [
        await first_svid(address, effort),
        await memory_of_a_stream(address, effort, fresh_agent),
    ]


def _openssl(effort: Effort) -> Result:
    repeats = [openssl.signatures_per_second(effort.openssl_seconds) for _ in range(effort.repeats)]
    return measured("openssl speed ecdsap256, one core", "sign/s", repeats)


def _openbao(directory: Path, requests: Requests, effort: Effort) -> Result:
    home = directory / "openbao"
    home.mkdir()
    pems = requests.pems()
    with openbao.running(home) as server:
        server.certificates_per_second(pems, CALLERS, effort.seconds / 4)
        repeats = [server.certificates_per_second(pems, CALLERS, effort.seconds) for _ in range(effort.repeats)]
    return measured("OpenBao pki/sign, in memory, http", "certificate/s", repeats)


def show(results: Sequence[Result]) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("RESULT", "VALUE", "UNIT", "SPREAD", "RATIO", "PEER"):
        table.add_column(heading, justify="right" if heading in ("VALUE", "SPREAD", "RATIO") else "left")
    for each in results:
        peer = "" if each.peer is None else f"{each.peer}: {each.peer_value:g}"
        ratio = "" if each.ratio is None else f"{each.ratio:g}"
        table.add_row(each.name, f"{each.value:g}", each.unit, f"{each.spread:g}", ratio, peer)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    sys.exit(main())
