"""Everything the authority must remember, in one database behind one writer.

Owns: rows, SQL, migrations, transactions and the change feed. Does not own: decisions. What comes out is the frozen
values of `livery_ca.model`.

Invariants: one process has the store open; one thread writes; a write is durable (fsync) before its caller hears of it;
every change of an entry, node, token, bundle or authority appends to the change feed in the same transaction.
"""

from __future__ import annotations

from livery_ca.store.store import Store

__all__ = ["Store"]
