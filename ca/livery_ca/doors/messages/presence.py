"""Whether a request has a field: protobuf gives an empty message where none was sent, and the two differ in meaning.

Owns: `given`. Does not own: what follows from absence (no mask: every field; no ID: an error).
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

Field = TypeVar("Field", bound=Message)


def given(request: Message, name: str, kind: type[Field]) -> Field | None:
    """The sub-message of this name, or None when the request has none. `kind` is its type."""
    if not request.HasField(name):
        return None
    found = getattr(request, name)
    assert isinstance(found, kind)
    return found
