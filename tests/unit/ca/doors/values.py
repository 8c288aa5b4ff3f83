"""Values that the tests of the authority's doors share: our trust domain, entries, nodes, callers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from livery.identity import BundleMap, Selector, SpiffeId, TrustDomain, VerifiedX509Svid, verify_x509
from livery.runtime.caller import Caller, PeerProcess
from livery_ca.model import Entry, Node
from livery_ca.model.entry import canonical_selectors
from tests.fakes.clock import START
from tests.pki import TestCa

OURS = TrustDomain("example.org")
CA = TestCa("example.org", now=START)
HOUR = timedelta(hours=1)


def an_id(path: str) -> SpiffeId:
    return SpiffeId.of(OURS, path)


def an_entry(entry_id: str, parent: str, path: str, *selectors: str, **fields: Any) -> Entry:
    """An entry with the selector `unix:uid:1` unless others are given."""
    chosen = canonical_selectors([Selector.parse(each) for each in selectors or ("unix:uid:1",)])
    return Entry(entry_id, an_id(path), an_id(parent), chosen, created_at=START, **fields)


def a_node(path: str, *selectors: str, serial: str = "1", **fields: Any) -> Node:
    chosen = canonical_selectors([Selector.parse(each) for each in selectors])
    node = Node(an_id(path), "x509pop", serial, START + HOUR, can_reattest=True, selectors=chosen)
    return replace(node, **fields)


def a_svid(path: str, serial: int = 1, ttl: timedelta = HOUR) -> VerifiedX509Svid:
    svid = CA.issue(path, ttl, serial=serial)
    return verify_x509(svid.chain, BundleMap.of(CA.bundle()), START)


def over_tcp(svid: VerifiedX509Svid | None = None, ip: str = "192.0.2.7") -> Caller:
    return Caller("connection-1", f"{ip}:4711", identity=svid)


def local() -> Caller:
    return Caller("connection-2", "unix", process=PeerProcess(77, 1000, 1000, 5, 123))
