"""Small makers of entries, nodes and intents for tests of the store."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from livery.identity import Selector, SpiffeId, TrustDomain
from livery_ca.ledger.merkle import leaf_hash
from livery_ca.model import Entry, Intent, Node
from tests.fakes.clock import START

TD = TrustDomain("example.org")
AGENT = SpiffeId.of(TD, "/spire/agent/join_token/t")


def sid(path: str) -> SpiffeId:
    return SpiffeId.of(TD, path)


def selectors(*texts: str) -> tuple[Selector, ...]:
    return tuple(Selector.parse(text) for text in texts)


def entry(name: str, *texts: str, **changes: Any) -> Entry:
    """An entry of this ID whose SPIFFE ID is the ID, under AGENT, with these selectors."""
    fields: dict[str, Any] = {
        "id": name,
        "spiffe_id": sid(f"/{name}"),
        "parent_id": AGENT,
        "selectors": selectors(*(texts or ("unix:uid:1000",))),
        "created_at": START,
    }
    return Entry(**{**fields, **changes})


def node(name: str, *texts: str, **changes: Any) -> Node:
    fields: dict[str, Any] = {
        "id": sid(f"/spire/agent/{name}"),
        "attestation_type": "x509pop",
        "serial": "1",
        "serial_expires_at": START + timedelta(hours=1),
        "can_reattest": True,
        "selectors": selectors(*texts),
    }
    return Node(**{**fields, **changes})


def intent(serial: int, at: datetime = START, **changes: Any) -> Intent:
    tbs = b"tbs %d" % serial
    fields: dict[str, Any] = {
        "serial": serial,
        "profile": "workload",
        "spiffe_id": sid("/w"),
        "authority_id": "aa",
        "key_hash": hashlib.sha256(b"key").digest(),
        "not_before": at - timedelta(seconds=10),
        "not_after": at + timedelta(hours=1),
        "tbs": tbs,
        "leaf_hash": leaf_hash(tbs),
        "asked_by": str(AGENT),
        "journalled_at": at,
    }
    return Intent(**{**fields, **changes})
