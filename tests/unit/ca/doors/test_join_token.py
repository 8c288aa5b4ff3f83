"""The authority's half of joining by token."""

from __future__ import annotations

from datetime import timedelta

import pytest

from livery_ca.attest.attestor import Evidence
from livery_ca.attest.join_token import BadJoinToken, JoinTokenAttestor, refusal
from livery_ca.model import JoinToken
from livery_ca.store.errors import TokenExpired, TokenUnknown, TokenUsed
from livery_ca.store.writes import SpendToken
from tests.fakes.clock import START
from tests.unit.ca.doors.values import OURS, an_id

KEY, OTHER = b"k" * 32, b"o" * 32
USED = "failed to attest: join token does not exist or has already been used"


class Tokens:
    """Tokens in a dictionary."""

    def __init__(self, *tokens: JoinToken) -> None:
        self.by_value = {token.value: token for token in tokens}

    async def get(self, value: str) -> JoinToken | None:
        return self.by_value.get(value)


async def nobody(_challenge: bytes) -> bytes:
    raise AssertionError("a join token is not challenged")


def evidence(payload: bytes = b"secret", key: bytes = KEY) -> Evidence:
    return Evidence(payload, key, START)


def attestor(bound: bytes | None = None, ttl: timedelta = timedelta(minutes=10)) -> JoinTokenAttestor:
    return JoinTokenAttestor(OURS, Tokens(JoinToken("secret", START + ttl, bound)))


async def test_a_token_names_its_agent_and_is_spent_in_the_record() -> None:
    attested = await attestor().attest(evidence(), nobody)
    assert attested.agent_id == an_id("/spire/agent/join_token/secret")
    assert (attested.selectors, attested.can_reattest) == ((), False)
    assert attested.writes == (SpendToken("secret", KEY, START),)


async def test_the_key_that_used_a_token_may_use_it_again() -> None:
    assert (await attestor(bound=KEY).attest(evidence(), nobody)).writes


async def test_no_other_key_may() -> None:
    with pytest.raises(BadJoinToken, match=f"^{USED}$"):
        await attestor(bound=OTHER).attest(evidence(), nobody)


async def test_a_token_that_has_ended_admits_nobody_not_even_its_own_key() -> None:
    with pytest.raises(BadJoinToken, match=r"^join token expired$"):
        await attestor(bound=KEY, ttl=timedelta(0)).attest(evidence(), nobody)


@pytest.mark.parametrize(
    "payload", [b"unknown", b"../server", b"a/b", b"..", b"\xff\xfe", b"x" * 300, b"x" * 1_000_000, b"s\n", b"a b"]
)
async def test_what_no_token_could_be_does_not_exist(payload: bytes) -> None:
    with pytest.raises(BadJoinToken, match=f"^{USED}$"):
        await attestor().attest(evidence(payload), nobody)


def test_the_stores_refusals_are_told_in_the_agents_words() -> None:
    assert str(refusal(TokenExpired("x"))) == "join token expired"
    assert str(refusal(TokenUsed("x"))) == str(refusal(TokenUnknown("x"))) == USED


def test_evidence_does_not_show_the_token() -> None:
    assert "secret" not in repr(evidence())
