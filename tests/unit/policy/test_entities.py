"""Entities come from the IDs themselves, so every caller has its ancestors."""

from __future__ import annotations

import json

import pytest

from livery.identity import SpiffeId
from livery_policy import cedar
from livery_policy.model.calls import Unreadable
from livery_policy.model.decision import Reason
from livery_policy.model.entities import MAX_SEGMENTS, EntityBook, Pair, ancestors
from tests.policies import INVENTORY, ORDERS, VOCABULARY

SCHEMA = cedar.schema(VOCABULARY.schema_text())
DEEP = "spiffe://demo.test/ns/shop/sa/orders"


def pair(principal: str, resource: str = INVENTORY, book: EntityBook | None = None) -> Pair:
    found = (book or EntityBook(SCHEMA)).pair(principal, resource)
    assert isinstance(found, Pair)
    return found


def test_ancestors_are_every_prefix_of_the_path_itself_included_and_the_trust_domain() -> None:
    prefixes = [DEEP, "spiffe://demo.test/ns/shop/sa", "spiffe://demo.test/ns/shop", "spiffe://demo.test/ns"]
    expected = [("Livery::PathPrefix", p) for p in prefixes] + [("Livery::TrustDomain", "demo.test")]
    assert list(ancestors(SpiffeId.parse(DEEP))) == expected


def test_cedar_closes_over_the_ancestors_and_knows_the_action_groups() -> None:
    entities = {e["uid"]["id"]: e for e in json.loads(str(pair(DEEP).handle)) if e["uid"]["type"] == "Livery::Workload"}
    assert {p["id"] for p in entities[DEEP]["parents"]} >= {"demo.test", "spiffe://demo.test/ns", DEEP}
    assert entities[DEEP]["attrs"]["path"] == "/ns/shop/sa/orders"
    actions = [e for e in json.loads(str(pair(DEEP).handle)) if e["uid"]["id"] == "http:GET"]
    assert {p["id"] for p in actions[0]["parents"]} == {"http:read", "http", "call"}


def test_a_policy_reads_the_parts_of_both_ids() -> None:
    entities = {e["uid"]["type"]: e["attrs"] for e in json.loads(str(pair(DEEP).handle)) if e["attrs"]}
    parts = {"trust_domain": "demo.test", "path": "/ns/shop/sa/orders", "selectors": []}
    workload = entities["Livery::Workload"]
    assert {name: workload[name] for name in parts} == parts
    assert set(workload["segments"]) == {"ns", "shop", "sa", "orders"}
    assert entities["Livery::Service"] == {"trust_domain": "demo.test", "path": "/inventory"}


def test_a_workload_that_calls_itself_is_two_entities() -> None:
    assert pair(ORDERS, ORDERS).principal == pair(ORDERS, ORDERS).resource


@pytest.mark.parametrize(
    "text",
    ["", "orders", "spiffe://", "spiffe://demo.test", "spiffe://Demo.test/a", "spiffe://demo.test/a/", "https://a/b"],
)
def test_who_is_no_workload_is_a_bad_subject_or_resource(text: str) -> None:
    book = EntityBook(SCHEMA)
    subject, resource = book.pair(text, INVENTORY), book.pair(ORDERS, text)
    assert isinstance(subject, Unreadable)
    assert isinstance(resource, Unreadable)
    assert (subject.reason, resource.reason) == (Reason.BAD_SUBJECT, Reason.BAD_RESOURCE)


def test_a_path_of_a_thousand_segments_is_refused_before_it_costs_anything() -> None:
    found = EntityBook(SCHEMA).pair("spiffe://demo.test" + "/a" * (MAX_SEGMENTS + 1), INVENTORY)
    assert isinstance(found, Unreadable)
    assert pair("spiffe://demo.test" + "/a" * MAX_SEGMENTS)


def test_the_book_is_bounded_and_keeps_what_is_used() -> None:
    book = EntityBook(SCHEMA, capacity=3)
    first = pair(ORDERS, book=book)
    for n in range(10):
        pair(f"spiffe://demo.test/w{n}", book=book)
        assert pair(ORDERS, book=book) is first
    assert len(book._pairs) == 3


def test_deep_ids_take_the_places_of_many() -> None:
    """Two IDs of 64 segments take a hundred times the memory of two usual ones."""
    book = EntityBook(SCHEMA, capacity=300)
    for n in range(5):
        deep = f"spiffe://demo.test/w{n}" + "/a" * (MAX_SEGMENTS - 1)
        assert pair(deep, deep, book=book) is pair(deep, deep, book=book)
    assert len(book._pairs) == 2
    for n in range(500):
        pair(f"spiffe://demo.test/ns/shop/sa/w{n}", book=book)
    assert len(book._pairs) == 300


def test_selectors_are_an_attribute_of_the_workload() -> None:
    book = EntityBook(SCHEMA, selectors={ORDERS: ("unix:uid:1000",)}, version=7)
    uid = {"type": "Livery::Workload", "id": ORDERS}
    workload = next(e for e in json.loads(str(pair(ORDERS, book=book).handle)) if e["uid"] == uid)
    assert (workload["attrs"]["selectors"], book.version) == (["unix:uid:1000"], 7)
