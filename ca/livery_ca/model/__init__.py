"""The values the authority thinks in: entries, nodes, join tokens, authorities, intents; and how lists are asked for.

Owns: frozen values and the few facts that follow from them alone. Does not own: rows and SQL (`store`), X.509 bytes
(`certificates`), time (every instant is an argument), the wire.

Invariant: modules here import `livery.identity` and the standard library only, so everything above may import them.
"""

from __future__ import annotations

from livery_ca.model.authority import (
    Authority,
    AuthorityEvent,
    AuthorityKind,
    AuthorityState,
    JwtSigner,
    X509Signer,
)
from livery_ca.model.entry import Entry, EntryFilter
from livery_ca.model.intent import Intent, JwtRecord, Outcome, Settled
from livery_ca.model.join_token import JoinToken
from livery_ca.model.listing import DomainMatch, Listing, Match, Page, SelectorMatch
from livery_ca.model.node import Node, NodeFilter

__all__ = [
    "Authority",
    "AuthorityEvent",
    "AuthorityKind",
    "AuthorityState",
    "DomainMatch",
    "Entry",
    "EntryFilter",
    "Intent",
    "JoinToken",
    "JwtRecord",
    "JwtSigner",
    "Listing",
    "Match",
    "Node",
    "NodeFilter",
    "Outcome",
    "Page",
    "SelectorMatch",
    "Settled",
    "X509Signer",
]
