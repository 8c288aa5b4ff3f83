"""Entries to and from the wire, each under its mask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from livery.errors import Kind, LiveryError
from livery.identity import TrustDomain
from livery.wire import types_api
from livery_ca.doors.messages import entry_form
from tests.fakes.clock import START
from tests.unit.ca.doors.values import OURS, an_entry


def a_message(**fields: Any) -> types_api.Entry:
    """A sound entry; `fields` replace its own, and None takes one away."""
    sound: dict[str, Any] = {
        "spiffe_id": types_api.SPIFFEID(trust_domain="example.org", path="/web"),
        "parent_id": types_api.SPIFFEID(trust_domain="example.org", path="/spire/agent/x509pop/one"),
        "selectors": [types_api.Selector(type="unix", value="uid:1000")],
    }
    return types_api.Entry(**{name: value for name, value in {**sound, **fields}.items() if value is not None})


def read(message: types_api.Entry, mask: types_api.EntryMask = entry_form.ALL_FIELDS) -> Any:
    fields = entry_form.read_fields(message, OURS, mask)
    return entry_form.new_entry(message, fields, START) if mask is entry_form.ALL_FIELDS else fields


FULL = a_message(
    id="my-entry",
    selectors=[types_api.Selector(type="unix", value="gid:1"), types_api.Selector(type="unix", value="uid:1000")],
    x509_svid_ttl=60,
    jwt_svid_ttl=30,
    federates_with=["partner.test"],
    admin=True,
    downstream=True,
    expires_at=1_900_000_000,
    dns_names=["web.example.org", "*.web.example.org"],
    store_svid=True,
    hint="internal",
    additional_attributes=types_api.Entry.AdditionalAttributes(jwt_svid_include_jti=True),
    created_at=int(START.timestamp()),
)


def test_every_field_comes_back_as_it_went_in() -> None:
    assert entry_form.write(read(FULL)) == FULL


def test_the_fields_are_read_into_units() -> None:
    entry = read(FULL)
    assert (entry.x509_svid_ttl, entry.jwt_svid_ttl) == (timedelta(seconds=60), timedelta(seconds=30))
    assert entry.expires_at == datetime.fromtimestamp(1_900_000_000, UTC)
    assert entry.federates_with == (TrustDomain("partner.test"),)


def test_what_is_not_said_is_the_default() -> None:
    entry = read(a_message())
    assert (entry.x509_svid_ttl, entry.jwt_svid_ttl, entry.expires_at) == (None, None, None)
    assert entry.revision_number == 0
    assert len(entry.id) == 36


def test_a_client_does_not_choose_the_revision_or_the_time_of_creation() -> None:
    entry = read(a_message(revision_number=99, created_at=1))
    assert (entry.revision_number, entry.created_at) == (0, START)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (a_message(parent_id=None), "invalid parent ID: request must specify SPIFFE ID"),
        (
            a_message(parent_id=types_api.SPIFFEID(trust_domain="other.org", path="/a")),
            'invalid parent ID: "spiffe://other.org/a" is not a member of trust domain "example.org"',
        ),
        (
            a_message(parent_id=types_api.SPIFFEID(trust_domain="example.org")),
            'invalid parent ID: "spiffe://example.org" is not a member of trust domain "example.org"; path is empty',
        ),
        (a_message(spiffe_id=None), "invalid spiffe ID: request must specify SPIFFE ID"),
        (
            a_message(spiffe_id=types_api.SPIFFEID(trust_domain="example.org", path="/spire/agent/x")),
            (
                'invalid spiffe ID: "spiffe://example.org/spire/agent/x" is not a workload in'
                ' trust domain "example.org"; path is in the reserved namespace'
            ),
        ),
        (
            a_message(spiffe_id=types_api.SPIFFEID(trust_domain="example.org")),
            'invalid spiffe ID: "spiffe://example.org" is not a workload in trust domain "example.org"; path is empty',
        ),
        (a_message(selectors=[]), "selector list is empty"),
        (a_message(selectors=[types_api.Selector(value="v")]), "missing selector type"),
        (a_message(selectors=[types_api.Selector(type="a:b", value="v")]), "selector type contains ':'"),
        (a_message(selectors=[types_api.Selector(type="a")]), "missing selector value"),
        (a_message(dns_names=["-bad"]), "invalid DNS name: idna error"),
        (a_message(hint="x" * 1025), "hint is too long, max length is 1024 characters"),
    ],
)
def test_a_bad_entry_is_refused_in_spires_words(message: types_api.Entry, text: str) -> None:
    with pytest.raises(LiveryError) as refused:
        read(message)
    assert str(refused.value) == text
    assert refused.value.kind is Kind.INVALID


@pytest.mark.parametrize(
    "path", ["no-slash", "/a//b", "/a/../b", "/trailing/", "/sp ace", "/new\nline", "/%41", "/a" * 2000]
)
def test_a_malformed_path_is_refused(path: str) -> None:
    with pytest.raises(LiveryError, match=r"^invalid spiffe ID: "):
        read(a_message(spiffe_id=types_api.SPIFFEID(trust_domain="example.org", path=path)))


@pytest.mark.parametrize("name", ["", "UPPER.org", "a/b", "spiffe://x/y"])
def test_a_malformed_federation_is_refused(name: str) -> None:
    with pytest.raises(LiveryError, match=r"^invalid federated trust domain: "):
        read(a_message(federates_with=[name]))


@pytest.mark.parametrize("expires_at", [-1, 2**62])
def test_an_end_that_is_no_date_is_refused(expires_at: int) -> None:
    with pytest.raises(LiveryError, match="expiry"):
        read(a_message(expires_at=expires_at))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"id": "x" * 256}, "invalid registration entry: entry ID too long"),
        ({"id": "a/b"}, "invalid registration entry: entry ID contains invalid characters"),
        ({"x509_svid_ttl": -1}, "invalid registration entry: X509SvidTtl is not set"),
        ({"jwt_svid_ttl": -1}, "invalid registration entry: JwtSvidTtl is not set"),
        (
            {"store_svid": True, "selectors": [types_api.Selector(type=t, value="v") for t in "ab"]},
            "invalid registration entry: selector types must be the same when store SVID is enabled",
        ),
    ],
)
def test_rules_on_the_entry_as_a_whole_are_refused_in_spires_words(fields: dict[str, Any], text: str) -> None:
    entry = read(a_message(**fields))
    with pytest.raises(LiveryError) as refused:
        entry_form.check(entry)
    assert str(refused.value) == text


def test_a_mask_says_which_fields_are_read() -> None:
    """A field outside the mask may hold anything: an update does not look at it."""
    message = types_api.Entry(id="e", hint="new", dns_names=["-bad"])
    assert read(message, types_api.EntryMask(hint=True)) == {"hint": "new"}


def test_each_field_has_a_place_in_the_mask_and_is_shown_only_under_it() -> None:
    entry = read(FULL)
    for field in types_api.EntryMask.DESCRIPTOR.fields:
        shown = entry_form.write(entry, types_api.EntryMask(**{field.name: True}))
        assert {f.name for f, _ in shown.ListFields()} - {"id", field.name} == set()
        if field.name != "revision_number":  # it is 0, and proto3 does not tell 0 from absent
            assert {f.name for f, _ in shown.ListFields()} == {"id", field.name}


def test_an_empty_mask_shows_the_id_alone() -> None:
    assert entry_form.write(an_entry("e", "/p", "/w"), types_api.EntryMask()) == types_api.Entry(id="e")
