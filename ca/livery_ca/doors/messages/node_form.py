"""Attested nodes on the wire: `types.Agent` under a mask, and the filters of ListAgents and CountAgents.

Owns: these forms. Does not own: the nodes (`store.nodes`), pages (`paging`).

Invariant: what a mask leaves out is not shown; the id is always shown. No mask means every field.
"""

from __future__ import annotations

import re
from datetime import datetime

from google.protobuf.wrappers_pb2 import BoolValue

from livery.runtime.spire_types import selectors_to_wire, spiffe_id_to_wire
from livery.wire import agent_api, types_api
from livery_ca.doors.messages import paging
from livery_ca.doors.messages.presence import given
from livery_ca.doors.refusals import malformed
from livery_ca.model import Node, NodeFilter

Filter = agent_api.ListAgentsRequest.Filter | agent_api.CountAgentsRequest.Filter

# Go's layout "2006-01-02 15:04:05 -0700 -07": the offset twice, and a fraction wherever seconds stand.
_GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{1,9})? ([+-]\d{4}) [+-]\d\d", re.ASCII)


def write(node: Node, mask: types_api.AgentMask | None = None) -> types_api.Agent:
    """The node as a message, with its id and the fields of the mask."""
    message = types_api.Agent(id=spiffe_id_to_wire(node.id))
    if mask is None or mask.selectors:
        message.selectors.extend(selectors_to_wire(node.selectors))
    scalars: dict[str, str | int | bool] = {
        "attestation_type": node.attestation_type,
        "x509svid_serial_number": node.serial,
        "x509svid_expires_at": int(node.serial_expires_at.timestamp()),
        "banned": node.banned,
        "can_reattest": node.can_reattest,
        "agent_version": node.agent_version,
    }
    for name, value in scalars.items():
        if mask is None or getattr(mask, name):
            setattr(message, name, value)
    return message


def read_filter(message: Filter | None) -> NodeFilter:
    """The filter as a value; None leaves everything open."""
    if message is None:
        return NodeFilter()
    selectors = given(message, "by_selector_match", types_api.SelectorMatch)
    banned = given(message, "by_banned", BoolValue)
    can_reattest = given(message, "by_can_reattest", BoolValue)
    with malformed("failed to parse selectors"):
        by_selectors = None if selectors is None else paging.read_selector_match(selectors)
    return NodeFilter(
        attestation_type=message.by_attestation_type or None,
        selectors=by_selectors,
        banned=None if banned is None else banned.value,
        can_reattest=None if can_reattest is None else can_reattest.value,
        expires_before=read_time(message.by_expires_before),
    )


def read_time(text: str) -> datetime | None:
    """An instant in Go's layout. What cannot be read is no filter: SPIRE drops it without a word, and clients know."""
    matched = _GO_TIME.fullmatch(text)
    if matched is None:
        return None
    try:
        return datetime.strptime(f"{matched[1]} {matched[3]}", "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None
