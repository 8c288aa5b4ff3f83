"""Policies asked without a server: check finds everything, can answers with its reasons, both as plain data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livery_policy.errors import InvalidPolicies, UnreadablePolicies
from livery_policy.findings import Severity
from livery_policy.model.vocabulary import Vocabulary
from livery_policy.offline import Wish, can, check
from tests.policies import AT, INVENTORY, ORDERS, PERMIT_GET, READ_ITEMS


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    (tmp_path / "demo.cedar").write_text(READ_ITEMS)
    return tmp_path


def test_sound_policies_have_no_findings(policies: Path) -> None:
    assert check([policies]) == check([policies / "demo.cedar"]) == ()


def test_findings_of_files_and_directories_name_each_place(policies: Path) -> None:
    (policies / "bad.cedar").write_text("\npermit(principal, action, resource);")
    (finding,) = check([policies])
    assert str(finding).startswith(f"{policies}/bad.cedar:2: error: every policy needs an id")
    assert json.dumps(finding.as_dict())
    (alone,) = check([policies / "bad.cedar"])
    assert alone == finding


def test_a_directory_without_policies_is_a_warning(policies: Path) -> None:
    (policies / "deep").mkdir()
    found = check([policies / "deep", policies])
    assert [str(each) for each in found] == [f"{policies}/deep: warning: the directory holds no *.cedar file [empty]"]


def test_conflicting_ids_of_two_files_are_found_together(policies: Path) -> None:
    (policies / "deep").mkdir()
    (policies / "deep" / "demo.cedar").write_text(READ_ITEMS)
    codes = [f.code for f in check([policies / "demo.cedar", policies / "deep" / "demo.cedar"])]
    assert codes == ["duplicate-id"]


def test_an_empty_file_is_a_warning_only(policies: Path) -> None:
    (policies / "later.cedar").write_text("// soon\n")
    assert [f.severity for f in check([policies])] == [Severity.WARNING]


def test_a_header_is_known_only_if_it_is_configured(policies: Path) -> None:
    text = f'@id("t") {PERMIT_GET} when {{ context.http.headers has "x-tenant" }};'
    (policies / "t.cedar").write_text(text)
    assert [f.code for f in check([policies])] == ["unknown-attribute"]
    assert check([policies], Vocabulary(headers=("x-tenant",))) == ()


def test_what_cannot_be_read_is_an_error(policies: Path) -> None:
    with pytest.raises(UnreadablePolicies):
        check([policies / "missing.cedar"])


def test_a_call_that_may_be_made(policies: Path) -> None:
    told = can(Wish(ORDERS, "GET", INVENTORY, {"http": {"path": "/items/1"}}), policies, AT)
    assert (told["outcome"], told["policies"]) == ("allow", ["demo/orders-may-read"])
    assert "assumed" not in told
    assert json.dumps(told)


def test_a_call_that_may_not_be_made_says_why_and_what_was_assumed(policies: Path) -> None:
    told = can(Wish(ORDERS, "GET", INVENTORY), policies / "demo.cedar", AT)
    assert (told["outcome"], told["assumed"]) == ("deny", {"http.path": "/"})
    assert told["explanation"] == [
        f"denied: {ORDERS} → GET / → {INVENTORY}",
        "because no policy permits it",
        f'nearest: demo/orders-may-read at {policies}/demo.cedar:2 failed on context.http.path like "/items/*"',
        "assumed: context.http.path is /",
        f"policies {told['version']['digest'][:19]}…",  # type: ignore[index]
    ]


@pytest.mark.parametrize("context", [{"http": []}, {"http": None}, {"http": {"path": 1}}, {"http": "x"}])
def test_a_context_that_cannot_be_read_is_a_denial_and_no_crash(policies: Path, context: dict[str, object]) -> None:
    assert can(Wish(ORDERS, "GET", INVENTORY, context), policies, AT)["reason"] == "bad_context"


@pytest.mark.parametrize("context", [{}, {"http": {"path": "/"}}])
def test_a_caller_is_taken_for_verified(policies: Path, context: dict[str, object]) -> None:
    (policies / "v.cedar").write_text('@id("v") permit(principal, action, resource) when { context.peer.verified };')
    assert can(Wish(ORDERS, "GET", INVENTORY, context), policies, AT)["policies"] == ["v/v"]


def test_nothing_is_assumed_for_grpc_and_connections(policies: Path) -> None:
    for action in ("grpc", "connect"):
        told = can(Wish(ORDERS, action, INVENTORY), policies, AT)
        assert (told["reason"], "assumed" in told) == ("bad_context", False)


def test_invalid_policies_answer_nothing(policies: Path) -> None:
    (policies / "bad.cedar").write_text("permit(")
    with pytest.raises(InvalidPolicies):
        can(Wish(ORDERS, "GET", INVENTORY), policies, AT)
