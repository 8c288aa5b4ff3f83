"""Registration entries on the wire: `types.Entry` read into values and written from them, each under a mask.

Owns: the two directions and SPIRE's order and words of refusal. Does not own: the rules themselves
(`entries.validation`), similar entries and unknown federations (`store.entries`).

Invariant: what a mask leaves out is neither read nor shown; the id is always shown. No mask means every field.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from livery.identity import IdentityError, TrustDomain
from livery.runtime.spire_types import selectors_to_wire, spiffe_id_to_wire
from livery.wire import types_api
from livery_ca.doors.messages import ids
from livery_ca.entries import validation
from livery_ca.entries.validation import InvalidEntry
from livery_ca.model import Entry

_LAST_INSTANT = 253_402_300_799  # 9999-12-31T23:59:59Z, the end of what RFC 5280 4.1.2.5 can say

ALL_FIELDS = types_api.EntryMask(**{field.name: True for field in types_api.EntryMask.DESCRIPTOR.fields})


def read_fields(message: types_api.Entry, ours: TrustDomain, mask: types_api.EntryMask) -> dict[str, Any]:
    """The fields of `model.Entry` that the mask names. Raises errors of kind INVALID ("failed to convert entry")."""
    fields: dict[str, Any] = {}
    if mask.parent_id:
        with _naming("invalid parent ID"):
            fields["parent_id"] = ids.member_id(message.parent_id if message.HasField("parent_id") else None, ours)
    if mask.spiffe_id:
        with _naming("invalid spiffe ID"):
            fields["spiffe_id"] = ids.workload_id(message.spiffe_id if message.HasField("spiffe_id") else None, ours)
    if mask.dns_names:
        for name in message.dns_names:
            validation.check_dns_name(name)
        fields["dns_names"] = tuple(message.dns_names)
    if mask.federates_with:
        with _naming("invalid federated trust domain"):
            fields["federates_with"] = tuple(TrustDomain.parse(name) for name in message.federates_with)
    if mask.selectors:
        if not message.selectors:
            raise InvalidEntry("selector list is empty")
        fields["selectors"] = ids.selectors(message.selectors)
    if mask.hint:
        validation.check_hint(message.hint)
        fields["hint"] = message.hint
    return {**fields, **_plain_fields(message, mask)}


def _plain_fields(message: types_api.Entry, mask: types_api.EntryMask) -> dict[str, Any]:
    """The fields that need no reading but a unit."""
    fields: dict[str, Any] = {}
    if mask.x509_svid_ttl:
        fields["x509_svid_ttl"] = _ttl(message.x509_svid_ttl)
    if mask.jwt_svid_ttl:
        fields["jwt_svid_ttl"] = _ttl(message.jwt_svid_ttl)
    if mask.expires_at:
        fields["expires_at"] = _instant(message.expires_at)
    if mask.additional_attributes:
        fields["disable_x509_svid_prefetch"] = message.additional_attributes.disable_x509_svid_prefetch
        fields["jwt_svid_include_jti"] = message.additional_attributes.jwt_svid_include_jti
    for name in ("admin", "downstream", "store_svid"):
        if getattr(mask, name):
            fields[name] = getattr(message, name)
    return fields


def check(entry: Entry) -> None:
    """The rules on the entry as a whole, which SPIRE's store applies. Raises `InvalidEntry`."""
    if entry.store_svid:
        validation.check_stored_svid(entry.selectors, no_prefetch=entry.disable_x509_svid_prefetch)
    validation.check_entry_id(entry.id)
    validation.check_ttl(_seconds(entry.x509_svid_ttl), "X509SvidTtl")
    validation.check_ttl(_seconds(entry.jwt_svid_ttl), "JwtSvidTtl")


def new_entry(message: types_api.Entry, fields: dict[str, Any], at: datetime) -> Entry:
    """The entry to be created from all its fields; without an id of its own it gets a random one."""
    return Entry(id=message.id or str(uuid.uuid4()), created_at=at.replace(microsecond=0), **fields)


def changed(entry: Entry, fields: dict[str, Any]) -> Entry:
    """The entry with these fields replaced."""
    return replace(entry, **fields)


def write(entry: Entry, mask: types_api.EntryMask | None = None) -> types_api.Entry:
    """The entry as a message, with its id and the fields of the mask."""
    shown = ALL_FIELDS if mask is None else mask
    message = types_api.Entry(id=entry.id)
    if shown.spiffe_id:
        message.spiffe_id.CopyFrom(spiffe_id_to_wire(entry.spiffe_id))
    if shown.parent_id:
        message.parent_id.CopyFrom(spiffe_id_to_wire(entry.parent_id))
    if shown.selectors:
        message.selectors.extend(selectors_to_wire(entry.selectors))
    if shown.federates_with:
        message.federates_with.extend(domain.name for domain in entry.federates_with)
    if shown.dns_names:
        message.dns_names.extend(entry.dns_names)
    if shown.additional_attributes and (entry.disable_x509_svid_prefetch or entry.jwt_svid_include_jti):
        message.additional_attributes.disable_x509_svid_prefetch = entry.disable_x509_svid_prefetch
        message.additional_attributes.jwt_svid_include_jti = entry.jwt_svid_include_jti
    for name, value in _scalars(entry).items():
        if getattr(shown, name):
            setattr(message, name, value)
    return message


def _scalars(entry: Entry) -> dict[str, bool | int | str]:
    return {
        "x509_svid_ttl": _seconds(entry.x509_svid_ttl),
        "jwt_svid_ttl": _seconds(entry.jwt_svid_ttl),
        "admin": entry.admin,
        "downstream": entry.downstream,
        "expires_at": 0 if entry.expires_at is None else int(entry.expires_at.timestamp()),
        "revision_number": entry.revision_number,
        "store_svid": entry.store_svid,
        "hint": entry.hint,
        "created_at": int(entry.created_at.timestamp()),
    }


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put a field's name before what is wrong with it."""
    try:
        yield
    except (ids.BadId, IdentityError) as cause:
        raise InvalidEntry(what, why=str(cause)) from cause


def _ttl(seconds: int) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None


def _seconds(ttl: timedelta | None) -> int:
    return 0 if ttl is None else int(ttl.total_seconds())


def _instant(seconds: int) -> datetime | None:
    if not 0 <= seconds <= _LAST_INSTANT:
        raise InvalidEntry("expiry is not within the years 1970 to 9999")
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
