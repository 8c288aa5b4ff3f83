"""The decision server as a service's enforcement point meets it: AuthZEN over its unix socket, connection kept alive.

Owns: asking the same allowed question over and over. The latency is what one caller sees who waits for each answer;
the processor time is the server's own, read from the kernel.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from statistics import median

import psutil

from tests.bench.effort import Effort
from tests.bench.results import Result, measured

_PATH = "/access/v1/evaluation"
_ROUNDS = 40  # questions for each request of the effort


def decisions(policy_socket: Path, pid: int, question: object, effort: Effort) -> list[Result]:
    """Latency (p50), decisions a second on one connection, and processor time of one decision."""
    connection = _connect(policy_socket)
    body = json.dumps(question)
    _ask(connection, body)
    latencies, rates, costs = [], [], []
    count = effort.requests * _ROUNDS
    process = psutil.Process(pid)
    for _ in range(effort.repeats):
        used, began = _processor_time(process), time.perf_counter()
        each = [_ask(connection, body) for _ in range(count)]
        rates.append(count / (time.perf_counter() - began))
        costs.append((_processor_time(process) - used) / count * 1e6)
        latencies.append(median(each) * 1e6)
    connection.close()
    return [
        measured("decision_latency_p50", "us", latencies),
        measured("decisions_on_one_connection", "decision/s", rates),
        measured("decision_processor_time", "us", costs),
    ]


def _connect(path: Path) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(path))
    return connection


def _ask(connection: http.client.HTTPConnection, body: str) -> float:
    began = time.perf_counter()
    connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    took = time.perf_counter() - began
    if response.status != 200 or json.loads(answer)["decision"] is not True:
        raise RuntimeError(f"the question was to be allowed: {response.status} {answer.decode()}")
    return took


def _processor_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
