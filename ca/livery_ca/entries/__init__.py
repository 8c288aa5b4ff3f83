"""Registration entries: what makes one valid, the index of them all, and who is entitled to which.

Owns: validation, the in-memory index, entitlement, and the catalogue that keeps the index current. Does not own: rows
(`store.entries`), the wire's form of an entry (`doors.messages.entry_form`).
"""
