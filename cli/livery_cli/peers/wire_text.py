"""Between what a user types and what the CA's API takes: IDs, selectors, entries, both ways.

Owns: these conversions for the CLI. Does not own: parsing itself (`livery.identity` does), or any rule about entries
(the CA judges them). Kept apart from `livery.runtime` so that a client command loads no server code.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from livery.identity import Selector, SpiffeId
from livery.wire import types_api
from livery_cli.terminal.output import at


def id_to_wire(text: str) -> types_api.SPIFFEID:
    """A SPIFFE ID as typed; raises `InvalidSpiffeId`."""
    spiffe_id = SpiffeId.parse(text)
    return types_api.SPIFFEID(trust_domain=spiffe_id.trust_domain.name, path=spiffe_id.path)


def id_from_wire(wire: types_api.SPIFFEID) -> str:
    """The ID as people write it; what the CA sends is shown as it is."""
    return f"spiffe://{wire.trust_domain}{wire.path}"


def selectors_to_wire(texts: Sequence[str]) -> list[types_api.Selector]:
    """Selectors as typed, `type:value`; raises `InvalidSelector`."""
    parsed = [Selector.parse(text) for text in texts]
    return [types_api.Selector(type=selector.type, value=selector.value) for selector in parsed]


def selectors_from_wire(wire: Sequence[types_api.Selector]) -> list[str]:
    """Selectors as people write them, sorted."""
    return sorted(f"{selector.type}:{selector.value}" for selector in wire)


def entry_row(entry: types_api.Entry) -> dict[str, object]:
    """An entry as the JSON output shows it."""
    return {
        "id": entry.id,
        "spiffe_id": id_from_wire(entry.spiffe_id),
        "parent_id": id_from_wire(entry.parent_id),
        "selectors": selectors_from_wire(entry.selectors),
        "x509_svid_ttl": _lifetime(entry.x509_svid_ttl),
        "jwt_svid_ttl": _lifetime(entry.jwt_svid_ttl),
        "dns_names": list(entry.dns_names),
        "federates_with": list(entry.federates_with),
        "admin": entry.admin,
        "downstream": entry.downstream,
        "store_svid": entry.store_svid,
        "hint": entry.hint,
        "expires_at": at(entry.expires_at),
        "created_at": at(entry.created_at),
        "revision": entry.revision_number,
    }


def _lifetime(seconds: int) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None
