"""Hashes of a Merkle tree as RFC 6962 2.1 defines them.

Owns: the hash of a leaf, of a node, and the root over leaf hashes. Does not own: where leaves are kept
(`store.leaves`).

Leaves and nodes are hashed with different first bytes, so that no leaf can pass for a subtree (RFC 6962 2.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LEAF = b"\x00"
_NODE = b"\x01"
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf; for the issuance log `data` is a TBSCertificate."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(_NODE + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The Merkle tree hash over these leaf hashes, in one pass and with memory for one hash per level."""
    # Complete subtrees, largest first: after n leaves there is one for each set bit of n (RFC 6962 2.1: k is the
    # largest power of two below n).
    subtrees: list[tuple[int, bytes]] = []
    for leaf in leaf_hashes:
        size, top = 1, leaf
        while subtrees and subtrees[-1][0] == size:
            _, left = subtrees.pop()
            size, top = size * 2, node_hash(left, top)
        subtrees.append((size, top))
    if not subtrees:
        return EMPTY_ROOT
    _, top = subtrees.pop()
    while subtrees:
        _, left = subtrees.pop()
        top = node_hash(left, top)
    return top
