"""What can go wrong with the store, one leaf per thing a caller would do differently.

Owns: the store's errors, and the reading of a database driver's error as one of them. Does not own: status codes.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import ClassVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from livery.errors import Kind, LiveryError
from livery.identity import SpiffeId
from livery_ca.model import Entry


class StoreError(LiveryError):
    """The root of what the store raises."""

    code: ClassVar[str] = "store"


class StoreUnavailable(StoreError):
    """The store did not take the write, or could not be read; nothing of it was done."""

    code: ClassVar[str] = "store_unavailable"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class StoreFull(StoreUnavailable):
    """No room was left on the disk; what was committed before is untouched."""

    code: ClassVar[str] = "store_full"


class StoreUnwritable(StoreUnavailable):
    """The database file may be read but not written."""

    code: ClassVar[str] = "store_unwritable"


class StoreLocked(StoreUnavailable):
    """Somebody else holds the database."""

    code: ClassVar[str] = "store_locked"


class StoreClosed(StoreUnavailable):
    """The store has been closed."""

    code: ClassVar[str] = "store_closed"


class StoreCorrupt(StoreError):
    """The file is damaged or is no store; it was left as it is."""

    code: ClassVar[str] = "store_corrupt"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class StoreMissing(StoreError):
    """There is no store, or an empty one, beside keys that only a store can tell the use of."""

    code: ClassVar[str] = "store_missing"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class StoreNewer(StoreError):
    """The store was written by a newer livery; it was left as it is."""

    code: ClassVar[str] = "store_newer"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class StoreForeign(StoreError):
    """The store belongs to another trust domain; it was left as it is."""

    code: ClassVar[str] = "store_foreign"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class Taken(StoreError):
    """Something of that name exists already."""

    code: ClassVar[str] = "taken"
    kind: ClassVar[Kind] = Kind.CONFLICT


class EntryIdTaken(Taken):
    """An entry has this ID already."""

    code: ClassVar[str] = "entry_id_taken"


class SimilarEntry(Taken):
    """An entry has the same SPIFFE ID, parent and selectors already: it is `existing`."""

    code: ClassVar[str] = "similar_entry"

    def __init__(self, existing: Entry) -> None:
        super().__init__(
            "similar entry already exists", why=f"it is entry {existing.id}", fix="update that one instead"
        )
        self.existing = existing


class TokenTaken(Taken):
    """A join token has this value already. The error does not show it."""

    code: ClassVar[str] = "token_taken"


class BundleTaken(Taken):
    """A bundle of this trust domain exists already."""

    code: ClassVar[str] = "bundle_taken"


class NotFound(StoreError):
    """There is nothing of that name."""

    code: ClassVar[str] = "not_found"
    kind: ClassVar[Kind] = Kind.NOT_FOUND


class EntryNotFound(NotFound):
    """There is no entry with this ID."""

    code: ClassVar[str] = "entry_not_found"


class NodeNotFound(NotFound):
    """There is no node with this ID."""

    code: ClassVar[str] = "node_not_found"


class BundleNotFound(NotFound):
    """There is no bundle of this trust domain."""

    code: ClassVar[str] = "bundle_not_found"


class UnknownFederatedDomain(StoreError):
    """An entry federates with a trust domain whose bundle is not here."""

    code: ClassVar[str] = "unknown_federated_domain"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class BundleInUse(StoreError):
    """Entries federate with this trust domain; `entries` says how many."""

    code: ClassVar[str] = "bundle_in_use"
    kind: ClassVar[Kind] = Kind.PRECONDITION

    def __init__(self, trust_domain: str, entries: int) -> None:
        super().__init__(f"the bundle of {trust_domain} is in use", why=f"{entries} entries federate with it")
        self.entries = entries


class ShadowingAuthority(StoreError):
    """A foreign bundle brings an authority that could be mistaken for one we hold already."""

    code: ClassVar[str] = "shadowing_authority"
    kind: ClassVar[Kind] = Kind.PRECONDITION


class NodeBanned(StoreError):
    """An operator has banned the node."""

    code: ClassVar[str] = "node_banned"
    kind: ClassVar[Kind] = Kind.DENIED


class NodeKnown(StoreError):
    """The node is there under another name: `id`."""

    code: ClassVar[str] = "node_known"
    kind: ClassVar[Kind] = Kind.DENIED

    def __init__(self, node_id: SpiffeId) -> None:
        super().__init__("the node is known by another name", why=f"{node_id} joined before")
        self.id = node_id


class TokenRefused(StoreError):
    """The join token does not admit this key now."""

    code: ClassVar[str] = "token_refused"
    kind: ClassVar[Kind] = Kind.INVALID


class TokenUnknown(TokenRefused):
    """There is no such join token."""

    code: ClassVar[str] = "token_unknown"


class TokenExpired(TokenRefused):
    """The join token has ended."""

    code: ClassVar[str] = "token_expired"


class TokenUsed(TokenRefused):
    """The join token belongs to another key."""

    code: ClassVar[str] = "token_used"


class JournalConflict(StoreError):
    """The journal refused a line: the serial exists already, or the intent is settled already."""

    code: ClassVar[str] = "journal_conflict"


_NOT_TEXT = "Could not decode to UTF-8"


def translate(cause: SQLAlchemyError, path: Path) -> StoreError:
    """The driver's error in our words: what it means for the state, and what to do about it."""
    original = cause.orig if isinstance(cause, DBAPIError) else None
    code = getattr(original, "sqlite_errorcode", None)
    why = str(original) if original is not None else type(cause).__name__
    if code is None and why.startswith(_NOT_TEXT):  # the driver's own error, which goes on to show the text
        return corrupt(path, _NOT_TEXT)
    match None if code is None else code & 0xFF:  # the low byte is the primary result code
        case sqlite3.SQLITE_FULL:
            return StoreFull(
                "no room to write the store", why=why, fix=f"free space under {path.parent}; nothing was lost"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return StoreUnwritable(f"could not write {path}", why=why, fix="give this user the right to write it")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(f"{path} is locked", why=why, fix="stop whatever else has the database open")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return corrupt(path, why)
        case _:
            return StoreUnavailable("the store did not answer", why=why, fix=f"look at the disk that holds {path}")


def corrupt(path: Path, why: str) -> StoreCorrupt:
    """The error for a damaged file."""
    fix = f"restore {path} from a backup; the damaged file was not changed"
    return StoreCorrupt(f"{path} is damaged or is not a livery store", why=why, fix=fix)
