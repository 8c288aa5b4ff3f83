"""SPIFFE IDs and selectors of requests: from the wire's messages to values, with SPIRE's rules and words.

Owns: which IDs may be a parent, an agent, a workload; reading selectors and trust domains. Does not own: their grammar
(`livery.identity`).

Invariant: every failure is a LiveryError of kind INVALID; the callers put their own field's name before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from livery.errors import Kind, LiveryError
from livery.identity import Selector, SpiffeId, TrustDomain
from livery.runtime.spire_types import selector_from_wire, spiffe_id_from_wire
from livery.wire import types_api

AGENT_PREFIX = "/spire/agent/"


class BadId(LiveryError):
    """The ID cannot be read, or may not stand where it stands."""

    code: ClassVar[str] = "bad_id"
    kind: ClassVar[Kind] = Kind.INVALID


class BadSelector(LiveryError):
    """The selector cannot be read."""

    code: ClassVar[str] = "bad_selector"
    kind: ClassVar[Kind] = Kind.INVALID


def member_id(message: types_api.SPIFFEID | None, ours: TrustDomain) -> SpiffeId:
    """Any ID of our trust domain but its root: what a parent may be."""
    found = _read(message)
    if not found.member_of(ours):
        raise BadId(f'"{found}" is not a member of trust domain "{ours}"')
    if found.is_root:
        raise BadId(f'"{found}" is not a member of trust domain "{ours}"; path is empty')
    return found


def agent_id(message: types_api.SPIFFEID | None, ours: TrustDomain) -> SpiffeId:
    """An ID under `/spire/agent/`."""
    found = member_id(message, ours)
    if not found.path.startswith(AGENT_PREFIX):
        raise BadId(f'"{found}" is not an agent in trust domain "{ours}"; path is not in the agent namespace')
    return found


def workload_id(message: types_api.SPIFFEID | None, ours: TrustDomain) -> SpiffeId:
    """An ID outside the reserved `/spire`."""
    found = _read(message)
    check_workload(found, ours)
    return found


def check_workload(found: SpiffeId, ours: TrustDomain) -> None:
    """Raise `BadId` unless a workload of our trust domain may have this ID."""
    if not found.member_of(ours):
        raise BadId(f'"{found}" is not a member of trust domain "{ours}"')
    if found.is_root:
        raise BadId(f'"{found}" is not a workload in trust domain "{ours}"; path is empty')
    if found.is_reserved:
        raise BadId(f'"{found}" is not a workload in trust domain "{ours}"; path is in the reserved namespace')


def selectors(messages: Iterable[types_api.Selector]) -> tuple[Selector, ...]:
    """Selectors in their order, duplicates and all."""
    return tuple(_selector(each) for each in messages)


def _selector(message: types_api.Selector) -> Selector:
    if not message.type:
        raise BadSelector("missing selector type")
    if ":" in message.type:
        raise BadSelector("selector type contains ':'")
    if not message.value:
        raise BadSelector("missing selector value")
    return selector_from_wire(message)


def _read(message: types_api.SPIFFEID | None) -> SpiffeId:
    if message is None:
        raise BadId("request must specify SPIFFE ID")
    if not message.trust_domain:
        raise BadId("trust domain is missing")
    return spiffe_id_from_wire(message)
