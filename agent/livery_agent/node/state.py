"""What a node must remember across its own restart: who it is, and whom it trusts.

Owns: `NodeSvid`, `NodeState` and their form on disk, one JSON document that holds key and SVID together, so that no
crash can leave one without the other. Does not own: files (`seal`), or the workloads' SVIDs, which live in memory.

`next_key` is the key of a request that is under way. It is written before the request is sent: the CA binds a join
token to the key it first sees, and a reply that is lost can then be asked for again with the same key.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from livery.errors import LiveryError
from livery.identity import TrustDomain, X509Svid
from livery_agent.errors import StateUnreadable
from livery_agent.node.keys import key_der
from livery_agent.schedule import JITTER, Renewal

FORMAT = 1

# What parsers say of bytes that are not what we wrote. (binascii.Error is a ValueError.)
_NOT_WHOLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class NodeSvid:
    """This node's own SVID, with its times and whether the CA lets the node attest again by itself."""

    svid: X509Svid
    renewal: Renewal
    reattestable: bool


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything in the state file. An empty one is a node that never attested."""

    trust_domain: TrustDomain
    node: NodeSvid | None = None
    next_key: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)


def encode(state: NodeState) -> bytes:
    """The state as JSON. It holds private keys: for a private file and nothing else."""
    document = {
        "format": FORMAT,
        "trust_domain": str(state.trust_domain),
        "node": _encode_node(state.node) if state.node else None,
        "next_key": _b64(key_der(state.next_key)) if state.next_key else None,
    }
    return json.dumps(document, indent=1).encode()


def _encode_node(node: NodeSvid) -> dict[str, Any]:
    return {
        "key": _b64(node.svid.key_der()),
        "chain": _b64(node.svid.chain_der()),
        "reattestable": node.reattestable,
        "received_at": node.renewal.received_at.isoformat(),
        "jitter": node.renewal.jitter,
    }


def decode(data: bytes, expected: TrustDomain) -> NodeState:
    """Read a state; raises `StateUnreadable` if it is not one, or one of another trust domain."""
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise StateUnreadable("the agent's state has another format", why=f"format {document['format']!r:.20}")
        trust_domain = TrustDomain.parse(document["trust_domain"])
        node = _decode_node(document["node"]) if document["node"] is not None else None
        next_key = _decode_key(document["next_key"]) if document["next_key"] is not None else None
    except (LiveryError, *_NOT_WHOLE) as cause:
        if isinstance(cause, StateUnreadable):
            raise
        why = str(cause) if isinstance(cause, LiveryError) else f"it is not whole ({type(cause).__name__})"
        raise StateUnreadable("the agent's state is unreadable", why=why) from None
    if trust_domain != expected:
        raise StateUnreadable(f"the agent's state is of trust domain {trust_domain}", why=f"not of {expected}")
    return NodeState(trust_domain, node, next_key)


def _decode_node(document: dict[str, Any]) -> NodeSvid:
    svid = X509Svid.from_der(_unb64(document["chain"]), _unb64(document["key"]))
    received_at = datetime.fromisoformat(document["received_at"])
    jitter = float(document["jitter"])
    if received_at.tzinfo is None or not -JITTER <= jitter <= JITTER or not isinstance(document["reattestable"], bool):
        raise ValueError
    # The narrowest end of the chain, as when it was accepted; the authority above it is not part of it.
    expires_at = min(certificate.not_valid_after_utc for certificate in svid.chain)
    renewal = Renewal(received_at, expires_at, jitter)
    return NodeSvid(svid, renewal, document["reattestable"])


def _decode_key(text: str) -> ec.EllipticCurvePrivateKey:
    key = load_der_private_key(_unb64(text), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError
    return key


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
