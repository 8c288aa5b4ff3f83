"""What administrators do to entries, item by item, when it cannot be done."""

from __future__ import annotations

import pytest

from livery_ca.doors.entry_changes import EntryChanges
from livery_ca.doors.messages import entry_form
from livery_ca.store import Store
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock
from tests.unit.ca.doors.values import OURS, an_entry

UNAVAILABLE = 14


@pytest.mark.parametrize("change", ["create", "update", "delete"])
async def test_what_cannot_be_audited_is_not_done_and_may_be_tried_again(store: Store, change: str) -> None:
    audit = RecordingAudit()
    changes = EntryChanges(OURS, store.entries, FakeClock(), audit)
    await store.entries.create(an_entry("old", "/p", "/old"))
    audit.broken = True
    new = entry_form.write(an_entry("new", "/p", "/new"))
    renamed = entry_form.write(an_entry("old", "/p", "/new"))
    match change:
        case "create":
            status = (await changes.create(new, None, "somebody")).status
        case "update":
            status = (await changes.update(renamed, entry_form.ALL_FIELDS, None, "somebody")).status
        case _:
            status = (await changes.delete("old", "somebody")).status
    assert status.code == UNAVAILABLE
    assert status.message == "an audit record could not be written, so the request was not carried out"
    (left,) = (await store.entries.list()).items
    assert (left.id, left.spiffe_id.path) == ("old", "/old")
