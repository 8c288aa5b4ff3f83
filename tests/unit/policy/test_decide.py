"""The core: deny by default, forbid wins, and every answer names its policies and its version."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from livery.errors import Kind
from livery_policy import cedar
from livery_policy.engine.cache import DecisionCache
from livery_policy.engine.compiling import compile_policies
from livery_policy.engine.decide import Engine
from livery_policy.engine.source import PolicyFile
from livery_policy.model.calls import Call, Peer
from livery_policy.model.decision import Decision, Outcome, Reason
from livery_policy.model.entities import EntityBook
from livery_policy.model.vocabulary import Vocabulary
from tests.policies import AT, EVIL, INVENTORY, ORDERS, READ_ITEMS, VOCABULARY, compiled, engine, get

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "policy_decisions.json").read_text("utf-8")
)
NO_EVIL = '@id("no-evil") forbid(principal in Livery::TrustDomain::"evil.test", action, resource);'


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda c: c["name"])
def test_every_decision_vector(case: dict[str, Any]) -> None:
    """Policies, a call and its decision, as data."""
    vocabulary = Vocabulary(tuple(VECTORS["headers"]), tuple(VECTORS["claims"]))
    policies = compile_policies([PolicyFile("v", "v.cedar", "\n".join(VECTORS["policies"]))], vocabulary)
    call = Call(case["principal"], case["action"], case["resource"], case["context"], Peer(verified=True))
    judgement = Engine(policies, vocabulary).judge(call, AT)
    assert (str(judgement.reason), list(judgement.policies)) == (case["reason"], case["policies"]), judgement


def test_an_empty_set_denies() -> None:
    assert engine().judge(get(), AT).reason is Reason.NOT_PERMITTED


def test_a_call_that_nothing_permits_is_denied() -> None:
    judgement = engine(READ_ITEMS).judge(get("/orders/1"), AT)
    assert (judgement.reason, judgement.policies) == (Reason.NOT_PERMITTED, ())


def test_a_forbid_wins_over_a_permit() -> None:
    judgement = engine('@id("all") permit(principal, action, resource);', NO_EVIL).judge(get(principal=EVIL), AT)
    assert (judgement.reason, judgement.policies) == (Reason.FORBIDDEN, ("p1/no-evil",))


def test_the_deciding_policies_are_named_in_order() -> None:
    texts = (f'@id("{name}") permit(principal, action, resource);' for name in ("b", "a", "c"))
    assert engine("\n".join(texts)).judge(get(), AT).policies == ("p0/a", "p0/b", "p0/c")


def test_every_judgement_carries_the_version_refusals_included() -> None:
    judge = engine(READ_ITEMS)
    for call in (get(), get("/x"), get("//"), get(principal="x"), get(method="get")):
        assert judge.judge(call, AT).version == judge.version


def test_a_condition_on_the_time_is_asked_each_time_and_never_cached() -> None:
    text = (
        '@id("until") permit(principal, action == Livery::Action::"http:GET", resource)'
        ' when { context has now && context.now < datetime("2026-11-24T12:00:01Z") };'
    )
    judge = engine(text, cache=DecisionCache(10))
    assert judge.judge(get(), AT).reason is Reason.PERMITTED
    assert judge.judge(get(), AT + timedelta(seconds=1)).reason is Reason.NOT_PERMITTED
    assert judge.judge(get(), AT).reason is Reason.PERMITTED


def test_a_condition_on_the_peers_address_is_evaluated() -> None:
    text = (
        '@id("net") permit(principal, action, resource)'
        ' when { context.peer.verified && context.peer has ip && context.peer.ip.isInRange(ip("192.0.2.0/24")) };'
    )
    assert engine(text).judge(get(), AT).reason is Reason.PERMITTED


def test_the_cache_gives_the_same_answer_and_asks_once() -> None:
    asked: list[cedar.Question] = []

    def counting(question: cedar.Question, policies: cedar.PolicySet, entities: cedar.Entities) -> cedar.Answer:
        asked.append(question)
        return cedar.ask(question, policies, entities)

    judge = engine(READ_ITEMS, cache=DecisionCache(10), evaluator=counting)
    first, second = judge.judge(get(), AT), judge.judge(get(), AT)
    assert (first, len(asked)) == (second, 1)
    assert judge.judge(get("/orders"), AT, explain=False).reason is Reason.NOT_PERMITTED


def test_a_failure_to_decide_is_not_remembered() -> None:
    answers = [cedar.Answer(None, (), ("?",)), cedar.Answer(True, ("p0/orders-may-read",), ())]
    judge = engine(READ_ITEMS, cache=DecisionCache(10), evaluator=lambda q, p, e: answers.pop(0))
    assert [judge.judge(get(), AT).reason for _ in range(2)] == [Reason.NO_DECISION, Reason.PERMITTED]


def test_versions_share_a_cache_without_mixing() -> None:
    """The same call, the same cache, another policy of the same id: another answer."""
    cache = DecisionCache(100)
    old, new = compiled(READ_ITEMS), compiled(READ_ITEMS.replace("/items/*", "/things/*"))
    for policies, expected in ((old, Reason.PERMITTED), (new, Reason.NOT_PERMITTED), (old, Reason.PERMITTED)):
        assert Engine(policies, VOCABULARY, cache=cache).judge(get(), AT, explain=False).reason is expected


def test_two_actions_of_one_slice_are_not_one_answer() -> None:
    """A condition may ask for the action, which then stands in no scope and no path of the context."""
    text = '@id("a") permit(principal, action, resource) unless { action in Livery::Action::"http:write" };'
    judge = engine(text, cache=DecisionCache(100))
    for method, expected in (("GET", Reason.PERMITTED), ("PUT", Reason.NOT_PERMITTED), ("HEAD", Reason.PERMITTED)):
        assert judge.judge(get(method=method), AT).reason is expected


def test_other_selectors_are_another_answer() -> None:
    policies = compiled(
        '@id("root") permit(principal, action, resource) when { principal.selectors.contains("unix:uid:0") };'
    )
    cache = DecisionCache(100)
    for version, (selector, expected) in enumerate((("unix:uid:0", Reason.PERMITTED), ("none", Reason.NOT_PERMITTED))):
        book = EntityBook(policies.schema, selectors={ORDERS: (selector,)}, version=version)
        assert Engine(policies, VOCABULARY, cache=cache, entities=book).judge(get(), AT).reason is expected


def test_a_policy_that_moves_to_another_file_is_named_by_its_new_id() -> None:
    cache = DecisionCache(100)
    for policies, name in ((compiled(READ_ITEMS), "p0"), (compiled("", READ_ITEMS), "p1")):
        made = Engine(policies, VOCABULARY, cache=cache).judge(get(), AT)
        assert made.policies == (f"{name}/orders-may-read",)


@pytest.mark.parametrize("reason", list(Reason))
def test_only_permitted_allows_and_every_refusal_has_a_kind(reason: Reason) -> None:
    decision = Decision("d-1", reason)
    assert decision.allowed == (reason is Reason.PERMITTED) == (decision.outcome is Outcome.ALLOW)
    assert (decision.kind is None) == decision.allowed


def test_nobody_decided_is_another_kind_than_no() -> None:
    assert Decision("d", Reason.NO_DECISION).kind is Kind.UNAVAILABLE
    assert Decision("d", Reason.FORBIDDEN).kind is Kind.DENIED
    assert Decision("d", Reason.BAD_CONTEXT).kind is Kind.INVALID


def test_a_call_between_ids_that_are_none_is_denied_by_its_class() -> None:
    judge = engine(READ_ITEMS)
    assert judge.judge(Call("x", "GET", INVENTORY, {}), AT).reason is Reason.BAD_SUBJECT
    assert judge.judge(Call(ORDERS, "GET", "x", {}), AT).reason is Reason.BAD_RESOURCE
