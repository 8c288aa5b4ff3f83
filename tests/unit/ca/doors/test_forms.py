"""Pages, node forms and filters on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BoolValue, StringValue

from livery.errors import LiveryError
from livery.identity import Selector, TrustDomain
from livery.wire import agent_api, entry_api, types_api
from livery_ca.doors.messages import entry_filter, node_form, paging
from livery_ca.doors.refusals import InvalidArgument
from livery_ca.model import DomainMatch, EntryFilter, Listing, Match, NodeFilter, Page, SelectorMatch
from tests.fakes.clock import START
from tests.unit.ca.doors.values import OURS, a_node, an_id

UID = types_api.Selector(type="unix", value="uid:1")


@pytest.mark.parametrize(
    ("size", "token", "page"),
    [
        (0, "", Page()),
        (-1, "7", Page()),
        (0, "7", Page()),
        (5, "", Page(5)),
        (5, "7", Page(5, 7)),
        (5, str(2**63 - 1), Page(5, 2**63 - 1)),
    ],
)
def test_a_page_is_read(size: int, token: str, page: Page) -> None:
    assert paging.read_page(size, token) == page


@pytest.mark.parametrize("token", ["x", "-1", "1.5", " 1", "٣", str(2**63), "9" * 5000])
def test_a_token_we_never_gave_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="could not parse token"):
        paging.read_page(5, token)


def test_a_list_ends_with_an_empty_page_and_no_token() -> None:
    assert paging.next_token(Page(2), Listing(("a", "b"), 2)) == "2"
    assert paging.next_token(Page(2, 2), Listing(("c",), 3)) == "3"
    assert paging.next_token(Page(2, 3), Listing((), None)) == ""


def test_everything_in_one_message_has_no_token() -> None:
    assert paging.next_token(Page(), Listing(("a",), 1)) == ""


NODE = a_node("/spire/agent/x509pop/one", "x509pop:subject:cn:one", serial="77", agent_version="1.2", can_reattest=True)


def test_a_node_is_written_with_all_its_fields() -> None:
    assert node_form.write(NODE) == types_api.Agent(
        id=types_api.SPIFFEID(trust_domain="example.org", path="/spire/agent/x509pop/one"),
        attestation_type="x509pop",
        x509svid_serial_number="77",
        x509svid_expires_at=int(START.timestamp()) + 3600,
        selectors=[types_api.Selector(type="x509pop", value="subject:cn:one")],
        can_reattest=True,
        agent_version="1.2",
    )


def test_a_banned_node_says_so() -> None:
    assert node_form.write(a_node("/spire/agent/a/b", serial="")).banned


@pytest.mark.parametrize("field", [each.name for each in types_api.AgentMask.DESCRIPTOR.fields])
def test_a_node_shows_a_field_only_under_the_mask(field: str) -> None:
    node = a_node("/spire/agent/a/b", serial="") if field == "banned" else NODE
    shown = node_form.write(node, types_api.AgentMask(**{field: True}))
    assert {each.name for each, _ in shown.ListFields()} == {"id", field}


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-02 12:00:00 +0000 +00", datetime(2026, 11, 2, 12, tzinfo=UTC)),
        ("2026-11-02 14:00:00 +0200 +02", datetime(2026, 11, 2, 12, tzinfo=UTC)),
        ("2026-11-02 12:00:00.123456789 +0000 +00", datetime(2026, 11, 2, 12, tzinfo=UTC)),
        ("", None),
        ("2026-11-02T12:00:00Z", None),
        ("2026-13-02 12:00:00 +0000 +00", None),
        ("2026-11-02 12:00:00 +0000", None),
        ("2026-11-02 12:00:00 +9999 +99", None),
    ],
)
def test_an_instant_in_gos_layout_is_a_filter_and_anything_else_is_none(text: str, instant: Any) -> None:
    assert node_form.read_time(text) == instant


def test_a_node_filter_is_read() -> None:
    message = agent_api.ListAgentsRequest.Filter(
        by_attestation_type="x509pop",
        by_selector_match=types_api.SelectorMatch(selectors=[UID], match=types_api.SelectorMatch.MATCH_SUPERSET),
        by_banned=BoolValue(value=False),
        by_can_reattest=BoolValue(value=True),
        by_expires_before="2026-11-02 12:00:00 +0000 +00",
    )
    assert node_form.read_filter(message) == NodeFilter(
        attestation_type="x509pop",
        selectors=SelectorMatch(frozenset({Selector("unix", "uid:1")}), Match.SUPERSET),
        banned=False,
        can_reattest=True,
        expires_before=datetime(2026, 11, 2, 12, tzinfo=UTC),
    )


def test_no_filter_and_an_empty_filter_leave_everything_open() -> None:
    assert node_form.read_filter(None) == NodeFilter() == node_form.read_filter(agent_api.CountAgentsRequest.Filter())
    assert entry_filter.read(None, OURS) == EntryFilter()
    assert entry_filter.read(entry_api.CountEntriesRequest.Filter(by_hint=StringValue()), OURS) == EntryFilter()
    always_sent_by_spire_server = entry_api.ListEntriesRequest.Filter(by_downstream=BoolValue(value=False))
    assert entry_filter.read(always_sent_by_spire_server, OURS) == EntryFilter()


def test_an_entry_filter_is_read() -> None:
    message = entry_api.ListEntriesRequest.Filter(
        by_spiffe_id=types_api.SPIFFEID(trust_domain="example.org", path="/web"),
        by_parent_id=types_api.SPIFFEID(trust_domain="example.org", path="/spire/server"),
        by_selectors=types_api.SelectorMatch(selectors=[UID, UID], match=types_api.SelectorMatch.MATCH_ANY),
        by_federates_with=types_api.FederatesWithMatch(trust_domains=["partner.test"]),
        by_hint=StringValue(value="h"),
        by_downstream=BoolValue(value=True),
    )
    assert entry_filter.read(message, OURS) == EntryFilter(
        spiffe_id=an_id("/web"),
        parent_id=an_id("/spire/server"),
        selectors=SelectorMatch(frozenset({Selector("unix", "uid:1")}), Match.ANY),
        federates_with=DomainMatch(frozenset({TrustDomain("partner.test")}), Match.EXACT),
        hint="h",
        only_downstream=True,
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"by_spiffe_id": types_api.SPIFFEID()}, "malformed SPIFFE ID filter: trust domain is missing"),
        ({"by_parent_id": types_api.SPIFFEID()}, "malformed parent ID filter: trust domain is missing"),
        ({"by_selectors": types_api.SelectorMatch()}, "malformed selectors filter: empty selector set"),
        (
            {"by_selectors": types_api.SelectorMatch(selectors=[types_api.Selector(type="a")])},
            "malformed selectors filter: missing selector value",
        ),
        (
            {"by_federates_with": types_api.FederatesWithMatch()},
            "malformed federates with filter: empty trust domain set",
        ),
    ],
)
def test_a_malformed_entry_filter_is_refused_in_spires_words(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        entry_filter.read(entry_api.ListEntriesRequest.Filter(**fields), OURS)
    assert str(refused.value) == text


def test_an_unknown_way_to_match_is_refused() -> None:
    message = types_api.SelectorMatch(selectors=[UID])
    message.MergeFromString(b"\x10\x63")  # field 2, the match behaviour, with a number no standard gives
    with pytest.raises(LiveryError, match="unknown match behavior"):
        paging.read_selector_match(message)


def test_a_filter_of_more_values_than_a_database_compares_with_is_refused() -> None:
    selectors = [types_api.Selector(type="unix", value=f"uid:{number}") for number in range(paging.MOST_MATCHED + 1)]
    domains = [f"d{number}.test" for number in range(paging.MOST_MATCHED + 1)]
    assert len(paging.read_selector_match(types_api.SelectorMatch(selectors=selectors[1:])).selectors) == 1000
    assert len(paging.read_domain_match(types_api.FederatesWithMatch(trust_domains=domains[1:])).trust_domains) == 1000
    with pytest.raises(LiveryError, match=r"^too many selectors: 1001 are more than 1000$"):
        paging.read_selector_match(types_api.SelectorMatch(selectors=selectors))
    with pytest.raises(LiveryError, match=r"^too many trust domains: 1001 are more than 1000$"):
        paging.read_domain_match(types_api.FederatesWithMatch(trust_domains=domains))


def test_a_node_filter_without_selectors_is_refused() -> None:
    message = agent_api.ListAgentsRequest.Filter(by_selector_match=types_api.SelectorMatch())
    with pytest.raises(InvalidArgument, match="failed to parse selectors: empty selector set"):
        node_form.read_filter(message)
