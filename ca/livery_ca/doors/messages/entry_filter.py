"""The filters of ListEntries and CountEntries: one form under two names.

Owns: reading them, in SPIRE's words. Does not own: the lists.
"""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BoolValue, StringValue

from livery.identity import TrustDomain
from livery.wire import entry_api, types_api
from livery_ca.doors.messages import ids, paging
from livery_ca.doors.messages.presence import given
from livery_ca.doors.refusals import malformed
from livery_ca.model import EntryFilter

Filter = entry_api.ListEntriesRequest.Filter | entry_api.CountEntriesRequest.Filter


def read(message: Filter | None, ours: TrustDomain) -> EntryFilter:
    """The filter as a value; None leaves everything open."""
    if message is None:
        return EntryFilter()
    parent = given(message, "by_parent_id", types_api.SPIFFEID)
    subject = given(message, "by_spiffe_id", types_api.SPIFFEID)
    selectors = given(message, "by_selectors", types_api.SelectorMatch)
    domains = given(message, "by_federates_with", types_api.FederatesWithMatch)
    hint = given(message, "by_hint", StringValue)
    downstream = given(message, "by_downstream", BoolValue)
    with malformed("malformed parent ID filter"):
        parent_id = None if parent is None else ids.member_id(parent, ours)
    with malformed("malformed SPIFFE ID filter"):
        spiffe_id = None if subject is None else ids.workload_id(subject, ours)
    with malformed("malformed selectors filter"):
        by_selectors = None if selectors is None else paging.read_selector_match(selectors)
    with malformed("malformed federates with filter"):
        by_domains = None if domains is None else paging.read_domain_match(domains)
    return EntryFilter(
        spiffe_id=spiffe_id,
        parent_id=parent_id,
        selectors=by_selectors,
        federates_with=by_domains,
        hint=(hint.value or None) if hint is not None else None,  # SPIRE: empty filters nothing
        only_downstream=downstream is not None and downstream.value,  # SPIRE's command always sends one
    )
