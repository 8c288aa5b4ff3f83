"""How much is measured: a full run, or a quick one that shows no more than that everything can be measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Repeats, and the size of each."""

    repeats: int
    seconds: float  # of load in each repeat
    openssl_seconds: int  # of each `openssl speed`
    requests: int  # first requests to the Workload API, and decisions, in each repeat
    streams: int  # open at once
    agents: int  # fresh agents whose memory is measured


FULL = Effort(repeats=5, seconds=4.0, openssl_seconds=3, requests=60, streams=1000, agents=3)
QUICK = Effort(repeats=2, seconds=0.3, openssl_seconds=1, requests=5, streams=20, agents=1)
