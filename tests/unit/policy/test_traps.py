"""The six ways in which Cedar, used from Python without care, allows what a policy forbids. Each one is closed."""

from __future__ import annotations

import cedarpy
import pytest

from livery_policy import cedar
from livery_policy.engine.decide import judged
from livery_policy.engine.slices import Slice, whole
from livery_policy.errors import InvalidPolicies
from livery_policy.findings import Finding
from livery_policy.model.calls import Call, Peer
from livery_policy.model.decision import Reason
from livery_policy.model.entities import ACTION, SERVICE, WORKLOAD, EntityBook, Pair
from tests.policies import AT, EVIL, INVENTORY, ORDERS, PERMIT_GET, compiled, engine, get

ALLOW_ALL = '@id("all") permit(principal, action, resource);\n'


def answer(allowed: bool | None, *, reasons: tuple[str, ...] = (), errors: tuple[str, ...] = ()) -> cedar.Answer:
    return cedar.Answer(allowed, reasons, errors)


def slice_of(text: str) -> Slice:
    return whole(compiled(text))


# Trap 1: a forbid whose condition errors is skipped, and the call allowed.

OVERFLOW = """
@id("all") permit(principal, action, resource);
@id("quota") forbid(principal, action == Livery::Action::"http:GET", resource)
when { context.http has port && context.http.port * 9223372036854775807 > 0 };
"""


def test_trap_1_cedar_alone_allows_past_a_forbid_that_errors() -> None:
    """The trap is real: this is what the engine guards against."""
    call = {"principal": 'A::"a"', "action": 'A::"b"', "resource": 'A::"c"', "context": {}}
    text = "permit(principal, action, resource); forbid(principal, action, resource) when { context.blocked };"
    assert cedarpy.is_authorized(call, text, "[]").decision is cedarpy.Decision.Allow


def test_trap_1_a_forbid_that_errors_denies() -> None:
    """Even one that passes the validator: arithmetic can overflow."""
    judgement = engine(OVERFLOW).judge(get(), AT)
    assert (judgement.reason, judgement.policies) == (Reason.POLICY_ERROR, ("p0/quota",))


def test_trap_1_a_forbid_that_errors_is_told_even_where_nothing_permits() -> None:
    """It will bite on the first call that is permitted."""
    _, forbid = OVERFLOW.split("@id", 2)[1:]
    judgement = engine(f"@id{forbid}").judge(get(), AT)
    assert (judgement.reason, judgement.policies) == (Reason.POLICY_ERROR, ("p0/quota",))


def test_trap_1_a_permit_that_errors_only_does_not_permit() -> None:
    text = OVERFLOW.replace("forbid", "permit")
    assert engine(text).judge(get(), AT).reason is Reason.PERMITTED


def test_trap_1_an_unguarded_attribute_is_found_before_it_is_loaded() -> None:
    text = (
        '@id("f") forbid(principal, action == Livery::Action::"http:GET", resource) when { context.http.query == "x" };'
    )
    with pytest.raises(InvalidPolicies) as refused:
        compiled(text)
    assert [f.code for f in refused.value.findings if isinstance(f, Finding)] == ["unguarded-attribute"]


def test_trap_1_an_error_that_names_no_policy_counts_against_every_forbid() -> None:
    """Should Cedar word its errors differently one day, the answer is still no."""
    strange = answer(True, reasons=("p0/all",), errors=("something went wrong",))
    assert judged(strange, slice_of(OVERFLOW)).reason is Reason.POLICY_ERROR
    assert judged(strange, slice_of(ALLOW_ALL)).reason is Reason.PERMITTED


# Trap 2: {"__entity": …} and {"__extn": …} in a context become entities and extension values.


@pytest.mark.parametrize("name", ["__entity", "__extn", "__expr"])
@pytest.mark.parametrize(
    "place",
    [
        lambda bomb: {"http": {"path": "/", "headers": {"x-tenant": bomb}}},
        lambda bomb: {"http": {"path": "/", "headers": {"x-tenant": [bomb]}}},
        lambda bomb: {"http": bomb},
        lambda bomb: {"http": {"path": "/"}, **bomb},
        lambda bomb: {"http": {"path": "/"}, "unknown": [{"deep": [bomb]}]},
        lambda bomb: {"http": {"path": "/", "unknown": bomb}},
        lambda bomb: {"http": {"path": "/"}, "jwt": {"iss": "i", "sub": "s", "aud": "a", "groups": bomb}},
    ],
)
def test_trap_2_no_value_turns_into_an_entity_at_any_depth(name: str, place: object) -> None:
    assert callable(place)
    bomb = {name: {"type": "Livery::TrustDomain", "id": "demo.test"}}
    call = Call(ORDERS, "GET", INVENTORY, place(bomb), Peer(verified=True))
    assert engine(ALLOW_ALL).judge(call, AT).reason is Reason.BAD_CONTEXT


# Trap 3: entities parsed without the schema do not know the action groups.


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_trap_3_a_forbid_on_a_group_of_actions_holds_for_each_of_them(method: str) -> None:
    text = ALLOW_ALL + '@id("no-writes") forbid(principal, action in Livery::Action::"http:write", resource);'
    assert engine(text).judge(get(method=method), AT).reason is Reason.FORBIDDEN
    assert engine(text).judge(get(), AT).reason is Reason.PERMITTED


# Trap 4: a trimmed context beside a schema gives no decision; so it is checked at the edge and evaluated without.


def test_trap_4_a_context_cut_down_to_what_a_slice_reads_still_decides() -> None:
    seen: list[str] = []

    def spying(question: cedar.Question, policies: cedar.PolicySet, entities: cedar.Entities) -> cedar.Answer:
        seen.append(question.context)
        return cedar.ask(question, policies, entities)

    text = f'@id("a") {PERMIT_GET} when {{ context.http.path like "/items/*" }};'
    assert engine(text, evaluator=spying).judge(get(), AT).reason is Reason.PERMITTED
    assert seen == ['{"http":{"path":"/items/1"}}']


def test_trap_4_the_whole_context_is_checked_even_where_no_policy_reads_it() -> None:
    context = {"http": {"path": "/", "query": 1}}
    assert engine(ALLOW_ALL).judge(Call(ORDERS, "GET", INVENTORY, context), AT).reason is Reason.BAD_CONTEXT


# Trap 5: an ID that is absent from the entities has no ancestors.


@pytest.mark.parametrize(
    "scope",
    ['Livery::TrustDomain::"evil.test"', 'Livery::PathPrefix::"spiffe://evil.test/orders"'],
)
def test_trap_5_a_forbid_on_a_domain_or_prefix_holds_for_an_id_never_seen_before(scope: str) -> None:
    text = ALLOW_ALL + f'@id("no-evil") forbid(principal in {scope}, action, resource);'
    assert engine(text).judge(get(principal=EVIL), AT).policies == ("p0/no-evil",)
    assert engine(text).judge(get(principal=EVIL + "/deeper"), AT).reason is Reason.FORBIDDEN
    assert engine(text).judge(get(principal="spiffe://evil.test.demo/orders2"), AT).reason is Reason.PERMITTED


def test_trap_5_a_forbid_on_the_callees_domain_holds_too() -> None:
    text = (
        ALLOW_ALL
        + '@id("own-only") forbid(principal, action, resource) unless { resource in Livery::TrustDomain::"demo.test" };'
    )
    assert engine(text).judge(get(resource=EVIL), AT).reason is Reason.FORBIDDEN


# Trap 6: null, fractions, integers over 64 bits: no decision. Only Allow allows.


@pytest.mark.parametrize("value", [None, 1.5, 2**64, -(2**64), float("nan")])
def test_trap_6_values_that_cedar_cannot_take_are_bad_context(value: object) -> None:
    context = {"http": {"path": "/", "port": value}}
    assert engine(ALLOW_ALL).judge(Call(ORDERS, "GET", INVENTORY, context), AT).reason is Reason.BAD_CONTEXT


@pytest.mark.parametrize("context", ['{"a": null}', '{"a": 1.5}', '{"a": 99999999999999999999}', "[]"])
def test_trap_6_a_context_that_cedar_cannot_take_is_neither_yes_nor_no(context: str) -> None:
    """Should one get past the edge after all."""
    made = compiled(ALLOW_ALL)
    pair = EntityBook(made.schema).pair(ORDERS, INVENTORY)
    assert isinstance(pair, Pair)
    question = cedar.Question((WORKLOAD, ORDERS), (ACTION, "http:GET"), (SERVICE, INVENTORY), context)
    assert cedar.ask(question, whole(made).handle, pair.handle).allowed is None


def test_trap_6_no_decision_denies() -> None:
    judgement = engine(ALLOW_ALL, evaluator=lambda q, p, e: answer(None, errors=("?",))).judge(get(), AT)
    assert judgement.reason is Reason.NO_DECISION


def test_trap_6_an_evaluator_that_raises_denies() -> None:
    def broken(question: cedar.Question, policies: cedar.PolicySet, entities: cedar.Entities) -> cedar.Answer:
        raise KeyError("uid")

    judgement = engine(ALLOW_ALL, evaluator=broken).judge(get(), AT)
    assert judgement.reason is Reason.NO_DECISION
    assert "KeyError" in judgement.detail
