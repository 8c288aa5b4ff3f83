"""`make bench` writes what it promises, in its form; how fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.results import ROOT, figures, measured

FIELDS = {"name", "value", "unit", "spread", "peer", "peer_value", "ratio", "n"}
# What others hold us against, and what only we have: each of these is there in every run.
WITH_PEERS = {f"issuance_batch_{size}_vs_{peer}" for size in (1, 10, 100) for peer in ("openssl", "openbao")}
ALONE = {"workload_api_first_svid_p50", "decision_latency_p50", "decision_processor_time"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run wrote."""
    out = tmp_path_factory.mktemp("bench") / "deep" / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "issuance_batch_100_vs_openbao" in done.stdout
    return dict(json.loads(out.read_text("utf-8")))


def test_the_document_has_its_form(document: dict[str, Any]) -> None:
    assert set(document) == {"schema", "commit", "machine", "versions", "results"}
    assert document["schema"] == 1
    assert set(document["machine"]) == {"cpu", "cores", "kernel", "python"}
    assert {"livery", "grpcio", "openssl", "openbao"} <= set(document["versions"])
    assert all(set(result) == FIELDS for result in document["results"])


def test_every_promised_figure_is_there_with_its_peer(document: dict[str, Any]) -> None:
    results = {result["name"]: result for result in document["results"]}
    assert len(results) == len(document["results"])
    assert set(results) >= WITH_PEERS | ALONE
    assert [name for name in results if name.startswith("workload_api_memory_per_stream_at_")]
    for result in results.values():
        assert result["value"] > 0
        assert result["n"] >= 1
        assert (result["peer"] is None) == (result["ratio"] is None) == (result["peer_value"] is None)
    for name in WITH_PEERS:
        held = results[name]
        assert held["ratio"] == pytest.approx(held["value"] / held["peer_value"], rel=0.01)


def test_nothing_in_it_names_the_machine(document: dict[str, Any]) -> None:
    said = json.dumps(document)
    for name in (Path("/proc/sys/kernel/hostname").read_text().strip(), str(Path.home()), str(ROOT)):
        assert len(name) < 5 or name not in said


def test_a_result_is_the_median_of_its_repeats() -> None:
    result = measured("x", "ms", [3.0, 1.0, 2.0])
    assert (result.value, result.spread, result.n, result.ratio) == (2.0, 2.0, 3, None)
    held = result.beside("x_vs_y", measured("y", "ms", [4.0]))
    assert (held.name, held.peer, held.peer_value, held.ratio) == ("x_vs_y", "y", 4.0, 0.5)
    assert figures(1234567.0) == 1235000.0
