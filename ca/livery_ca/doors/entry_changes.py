"""What administrators do to entries, item by item: create, update, delete.

Owns: one item of each batch: reading, validity, the audit record before the effect, the store's refusals in SPIRE's
words. Does not own: batches and masks (`entry`), the wire's form (`entry_form`).

Invariant: each function returns a result with a status, whatever was wrong with its item.
"""

from __future__ import annotations

from livery.errors import LiveryError
from livery.identity import TrustDomain
from livery.runtime.audit import Audit, AuditUnavailable
from livery.runtime.clock import Clock
from livery.wire import entry_api, types_api
from livery_ca.doors.messages import entry_form
from livery_ca.doors.refusals import (
    AlreadyExists,
    Failed,
    InvalidArgument,
    Missing,
    failing,
    malformed,
    ok,
    status_of,
)
from livery_ca.model import Entry
from livery_ca.store.entries import Entries
from livery_ca.store.errors import EntryIdTaken, EntryNotFound, SimilarEntry, UnknownFederatedDomain

Mask = types_api.EntryMask
Created = entry_api.BatchCreateEntryResponse.Result
Updated = entry_api.BatchUpdateEntryResponse.Result
Deleted = entry_api.BatchDeleteEntryResponse.Result


class EntryChanges:
    """Carries out single changes."""

    def __init__(self, ours: TrustDomain, entries: Entries, clock: Clock, audit: Audit) -> None:
        self._ours = ours
        self._entries = entries
        self._clock = clock
        self._audit = audit

    async def create(self, message: types_api.Entry, shown: Mask | None, asked_by: str) -> Created:
        """Add an entry; a similar one that exists already is returned in its place, with the status that says so."""
        try:
            entry = self._new(message)
            self._record_creation(entry, asked_by)
            created = await self._entries.create(entry)
        except SimilarEntry as similar:
            status = status_of(AlreadyExists("similar entry already exists"))
            return Created(status=status, entry=entry_form.write(similar.existing, shown))
        except LiveryError as error:
            return Created(status=status_of(_in_words("create", error)))
        return Created(status=ok(), entry=entry_form.write(created, shown))

    async def update(self, message: types_api.Entry, mask: Mask, shown: Mask | None, asked_by: str) -> Updated:
        """Replace the fields of `mask`, in one transaction with reading the others."""
        try:
            with malformed("failed to convert entry"):
                fields = entry_form.read_fields(message, self._ours, mask)

            def edit(old: Entry) -> Entry:
                new = entry_form.changed(old, fields)
                with malformed("failed to update entry: datastore-sql"):
                    entry_form.check(new)
                return new

            told = {name: str(value) for name, value in fields.items() if name != "hint"}
            self._audit.record("entry.update", "granted", entry=message.id, changes=told, caller=asked_by)
            updated = await self._entries.change(message.id, edit)
        except LiveryError as error:
            return Updated(status=status_of(_in_words("update", error)))
        return Updated(status=ok(), entry=entry_form.write(updated, shown))

    async def delete(self, entry_id: str, asked_by: str) -> Deleted:
        """Remove an entry."""
        try:
            if not entry_id:
                raise InvalidArgument("missing entry ID")
            self._audit.record("entry.delete", "granted", entry=entry_id, caller=asked_by)
            await self._entries.delete(entry_id)
        except EntryNotFound:
            return Deleted(id=entry_id, status=status_of(Missing("entry not found")))
        except LiveryError as error:
            return Deleted(id=entry_id, status=status_of(_in_words("delete", error)))
        return Deleted(id=entry_id, status=ok())

    def _new(self, message: types_api.Entry) -> Entry:
        with malformed("failed to convert entry"):
            fields = entry_form.read_fields(message, self._ours, entry_form.ALL_FIELDS)
        entry = entry_form.new_entry(message, fields, self._clock.now())
        with malformed("failed to create entry: datastore-sql"):
            entry_form.check(entry)
        return entry

    def _record_creation(self, entry: Entry, asked_by: str) -> None:
        self._audit.record(
            "entry.create",
            "granted",
            entry=entry.id,
            spiffe_id=str(entry.spiffe_id),
            parent_id=str(entry.parent_id),
            selectors=[str(each) for each in entry.selectors],
            admin=entry.admin,
            downstream=entry.downstream,
            caller=asked_by,
        )


def _in_words(verb: str, error: LiveryError) -> LiveryError:
    """The store's refusal in SPIRE's words and code; what the doors themselves refused is in them already.

    What was not carried out because the audit log did not take it says so, as it does for every other method.
    """
    match error:
        case AuditUnavailable():
            return error
        case EntryNotFound():
            return Missing(f"failed to {verb} entry")
        case EntryIdTaken() | SimilarEntry():
            return AlreadyExists(f"failed to {verb} entry", why=str(error))
        case UnknownFederatedDomain():
            return Failed(f"failed to {verb} entry", why=str(error))
    try:
        with failing(f"failed to {verb} entry"):
            raise error
    except LiveryError as told:
        return told
