"""Giving a program of the tests an identity of a running `livery up`, as its user would: with `livery entry create`.

Owns: the selectors of a program (its user and its file), and waiting until the agent has the new entry. A program is
named by the file that the kernel runs, so two programs of one interpreter are one workload.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.e2e.running import Up, wait_until

THIS_PROGRAM = Path(sys.executable).resolve()


def admit(up: Up, path: str, program: Path = THIS_PROGRAM, *options: str) -> str:
    """Give `program`, run by this user, the ID at `path`; returns the ID once the agent holds an SVID for it."""
    spiffe_id = f"spiffe://{up.ready['trust_domain']}{path}"
    fields = ("--spiffe-id", spiffe_id, "--parent-id", agent_id(up), *selectors_of(program))
    made = up.livery("entry", "create", *fields, *options)
    assert made.returncode == 0, made.stderr
    wait_until(lambda: spiffe_id in held(up), 30, f"the agent holds an SVID for {spiffe_id}")
    return spiffe_id


def selectors_of(program: Path = THIS_PROGRAM) -> tuple[str, ...]:
    """The options that name a program of this user's."""
    return ("--selector", f"unix:uid:{os.geteuid()}", "--selector", f"unix:path:{program}")


def agent_id(up: Up) -> str:
    """The ID of this run's own agent."""
    listed = up.livery("node", "list", "-o", "name")
    assert listed.returncode == 0, listed.stderr
    (found,) = [line for line in listed.stdout.splitlines() if "/x509pop/" in line]
    return found


def held(up: Up) -> set[str]:
    """The IDs that the agent holds SVIDs for."""
    inspected = up.livery("inspect", "-o", "json")
    assert inspected.returncode == 0, inspected.stderr
    return set(_spiffe_ids(json.loads(inspected.stdout)))


def _spiffe_ids(said: object) -> list[str]:
    if isinstance(said, dict):
        own = [said["spiffe_id"]] if isinstance(said.get("spiffe_id"), str) else []
        return own + [found for value in said.values() for found in _spiffe_ids(value)]
    if isinstance(said, list):
        return [found for value in said for found in _spiffe_ids(value)]
    return []
