"""The schema is one text, with the configured headers and claims in it."""

from __future__ import annotations

import pytest

from livery_policy import cedar
from livery_policy.errors import InvalidVocabulary
from livery_policy.model.vocabulary import Vocabulary


def test_the_plain_schema_is_valid() -> None:
    assert cedar.schema(Vocabulary().schema_text())


def test_headers_and_claims_stand_in_the_schema_as_optional_sets() -> None:
    text = str(cedar.schema(Vocabulary(("x-tenant", "accept"), ("groups", "https://a.test/roles")).schema_text()))
    for line in ('"x-tenant"?: Set<String>', "accept?: Set<String>", "groups?: Set<String>"):
        assert line in text
    assert '"https://a.test/roles"?: Set<String>' in text


@pytest.mark.parametrize("name", ["X-Tenant", "", "a b", 'a"b', "a\n", "ä", "a" * 65])
def test_a_header_name_that_no_policy_can_read_is_refused(name: str) -> None:
    with pytest.raises(InvalidVocabulary):
        Vocabulary(headers=(name,))


@pytest.mark.parametrize("names", [("sub",), ("",), ('a"',), ("a", "a"), ("a}",)])
def test_a_claim_name_that_no_policy_can_read_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidVocabulary):
        Vocabulary(claims=names)
