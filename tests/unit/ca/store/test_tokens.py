"""Join tokens: one key of many is admitted, that one again, and nothing is spent halfway."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from livery.errors import LiveryError
from livery_ca.model import JoinToken, Outcome
from livery_ca.store import Store
from livery_ca.store.errors import SimilarEntry, TokenExpired, TokenTaken, TokenUnknown, TokenUsed
from livery_ca.store.journal import Settlement
from livery_ca.store.writes import AttestNode, SpendToken
from tests.fakes.clock import START
from tests.unit.ca.store.values import entry, intent, node, sid

TOKEN = JoinToken("s3cret-token-value", START + timedelta(minutes=10))


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


async def use(store: Store, serial: int, token: str, key_name: str, at: timedelta = timedelta(0)) -> LiveryError | None:
    """Record an issuance that spends the token and attests a node, as joining does."""
    (journalled,) = await store.journal.append([intent(serial)])
    writes = (SpendToken(token, key(key_name), START + at), AttestNode(node(token, serial=str(serial))))
    (refusal,) = await store.journal.settle([Settlement(journalled.index, Outcome.ISSUED, START, writes=writes)])
    return refusal


async def test_the_same_key_may_use_a_token_again_and_another_may_not(store: Store) -> None:
    await store.tokens.create(TOKEN)
    assert await use(store, 1, TOKEN.value, "mine") is None
    assert isinstance(await use(store, 2, TOKEN.value, "theirs"), TokenUsed)
    assert await use(store, 3, TOKEN.value, "mine") is None
    bound = await store.tokens.get(TOKEN.value)
    assert bound is not None
    assert bound.bound_key == key("mine")
    found = await store.nodes.get(sid(f"/spire/agent/{TOKEN.value}"))
    assert found is not None
    assert found.serial == "3"


async def test_a_token_ends_for_its_own_key_too(store: Store) -> None:
    await store.tokens.create(TOKEN)
    assert await use(store, 1, TOKEN.value, "mine") is None
    assert isinstance(await use(store, 2, TOKEN.value, "mine", timedelta(minutes=10)), TokenExpired)


async def test_an_unknown_token_admits_nobody(store: Store) -> None:
    assert isinstance(await use(store, 1, "guess", "mine"), TokenUnknown)


async def test_a_refused_record_leaves_token_and_node_untouched_and_withholds_the_certificate(store: Store) -> None:
    """Spending, node row and outcome are one: when the node is banned, the token stays free."""
    await store.tokens.create(TOKEN)
    made = node(TOKEN.value)
    await store.nodes.attest(made)
    await store.nodes.ban(made.id)
    assert (await use(store, 1, TOKEN.value, "mine")) is not None
    token = await store.tokens.get(TOKEN.value)
    assert token is not None
    assert token.bound_key is None
    settled = await store.journal.get(1)
    assert settled is not None
    assert settled.outcome is Outcome.WITHHELD
    assert "banned" in settled.reason


async def test_a_token_value_is_taken_once_and_its_error_does_not_show_it(store: Store) -> None:
    await store.tokens.create(TOKEN)
    with pytest.raises(TokenTaken) as refusal:
        await store.tokens.create(TOKEN)
    error: BaseException | None = refusal.value
    assert TOKEN.value not in f"{error!r} {error} {error.__cause__!r}" if error else False
    assert refusal.value.__suppress_context__


async def test_a_token_and_its_alias_are_made_together_or_not_at_all(store: Store) -> None:
    await store.entries.create(entry("first", spiffe_id=sid("/w")))
    with pytest.raises(SimilarEntry):
        await store.tokens.create(TOKEN, entry("alias", spiffe_id=sid("/w")))
    assert await store.tokens.get(TOKEN.value) is None
    await store.tokens.create(TOKEN, entry("alias", spiffe_id=sid("/v")))
    assert await store.entries.get("alias") is not None


async def test_ended_tokens_are_pruned(store: Store) -> None:
    await store.tokens.create(TOKEN)
    assert await store.tokens.prune(TOKEN.expires_at - timedelta(seconds=1)) == 0
    assert await store.tokens.prune(TOKEN.expires_at) == 1
    assert await store.tokens.get(TOKEN.value) is None


async def test_no_text_form_of_a_token_or_its_spending_shows_it(store: Store) -> None:
    """A join token is a secret until it is spent (the feed shows four characters)."""
    await store.tokens.create(TOKEN)
    feed = await store.changes.since(0)
    shown = f"{TOKEN!r} {TOKEN.redacted} {SpendToken(TOKEN.value, b'', START)!r} {feed!r}"
    assert TOKEN.value not in shown
    assert "join_token/s3cr…" in shown
