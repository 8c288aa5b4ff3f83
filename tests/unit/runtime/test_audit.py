"""The audit trail: complete lines, without secrets, or an error."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from livery.errors import Kind
from livery.runtime.audit import Audit, AuditLog, AuditUnavailable
from livery.runtime.logging import Sink, bound_contextvars
from tests.fakes.audit import RecordingAudit
from tests.fakes.clock import FakeClock


def test_a_record_is_one_json_line_of_type_audit() -> None:
    stream = io.StringIO()
    with bound_contextvars(request_id="r7"):
        AuditLog("ca", Sink(stream), FakeClock()).record("svid.issue", "granted", serial="0a", caller="spiffe://td/a")
    assert json.loads(stream.getvalue()) == {
        "time": "2026-11-02T12:00:00.000+00:00",
        "type": "audit",
        "event": "svid.issue",
        "outcome": "granted",
        "role": "ca",
        "request_id": "r7",
        "serial": "0a",
        "caller": "spiffe://td/a",
    }
    assert stream.getvalue().count("\n") == 1


def test_a_field_cannot_pass_itself_off_as_the_head_of_the_record() -> None:
    stream = io.StringIO()
    fields: dict[str, object] = {"type": "log", "role": "x", "time": "never"}
    AuditLog("ca", Sink(stream), FakeClock()).record("e", "refused", **fields)
    written = json.loads(stream.getvalue())
    assert (written["type"], written["role"]) == ("audit", "ca")
    assert written["time"] != "never"


def test_secrets_are_hidden_in_the_audit_trail_too() -> None:
    stream = io.StringIO()
    token = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
    log = AuditLog("ca", Sink(stream), FakeClock())
    log.record("node.attest", "granted", node=f"spiffe://td/spire/agent/join_token/{token}", join_token=token)
    assert token not in stream.getvalue()
    assert "join_token/0a1b…" in stream.getvalue()


def test_a_record_that_cannot_be_written_is_an_error_not_a_silence() -> None:
    """Whoever records before acting does not act."""
    with Path("/dev/full").open("w") as full, pytest.raises(AuditUnavailable, match="No space") as raised:
        AuditLog("ca", Sink(full), FakeClock()).record("svid.issue", "granted")
    assert raised.value.kind is Kind.UNAVAILABLE


def test_a_closed_sink_is_an_error_too() -> None:
    stream = io.StringIO()
    stream.close()
    with pytest.raises(AuditUnavailable):
        AuditLog("ca", Sink(stream), FakeClock()).record("svid.issue", "granted")


def test_the_recording_audit_stands_in_for_the_real_one() -> None:
    audit = RecordingAudit()
    seam: Audit = audit
    seam.record("svid.issue", "granted", serial="0a")
    assert audit.of("svid.issue") == [{"event": "svid.issue", "outcome": "granted", "serial": "0a"}]
    audit.broken = True
    with pytest.raises(AuditUnavailable):
        seam.record("svid.issue", "granted")
