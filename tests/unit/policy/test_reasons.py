"""A denial names the policies that came nearest and what of each failed first."""

from __future__ import annotations

from livery_policy.cedar import Answer
from livery_policy.engine.reasons import MAX_PROBED, MAX_SHOWN
from livery_policy.model.decision import NearMiss
from tests.policies import AT, INVENTORY, ORDERS, PERMIT_GET, READ_ITEMS, engine, get

GUARDED = """
@id("finance") permit(principal, action == Livery::Action::"http:GET", resource)
when { context has jwt && context.jwt has groups && context.jwt.groups.contains("finance") };
"""


def nearest(*texts: str, path: str = "/items/1", method: str = "GET", principal: str = ORDERS) -> tuple[NearMiss, ...]:
    return engine(*texts).judge(get(path, method=method, principal=principal), AT).nearest


def test_a_wrong_path_names_the_condition_as_it_is_written() -> None:
    (miss,) = nearest(READ_ITEMS, path="/orders/1")
    assert (miss.policy, miss.where, miss.held) == ("p0/orders-may-read", "p0.cedar:2", 3)
    assert miss.failed == ('context.http.path like "/items/*"',)


def test_a_wrong_principal_names_the_scope() -> None:
    (miss,) = nearest(READ_ITEMS, principal="spiffe://demo.test/billing")
    assert miss.first_failed == 'principal == Livery::Workload::"spiffe://demo.test/orders"'


def test_a_wrong_method_names_the_group() -> None:
    (miss,) = nearest(READ_ITEMS, method="DELETE")
    assert miss.first_failed == 'action in Livery::Action::"http:read"'


def test_of_a_guarded_condition_the_guard_is_the_reason() -> None:
    (miss,) = nearest(GUARDED)
    assert miss.first_failed == "context has jwt"
    assert len(miss.failed) == 3


def test_an_unless_is_named_as_an_unless() -> None:
    text = f'@id("a") {PERMIT_GET} unless {{ context.http.path == "/items/1" }};'
    (miss,) = nearest(text)
    assert miss.first_failed == 'unless { context.http.path == "/items/1" }'


def test_fewest_failed_first_then_by_id_and_at_most_three() -> None:
    scope = 'principal, action == Livery::Action::"http:GET", resource == Livery::Service::"{}"'
    permit = f'@id("{{}}") permit({scope}) when {{{{ context.http.host == "x" }}}};'
    near = [permit.format(name, INVENTORY) for name in ("c", "b", "a")]
    far = permit.format("A", "spiffe://demo.test/other")
    found = nearest("\n".join([far, *near]))
    assert [m.policy for m in found] == ["p0/a", "p0/b", "p0/c"]
    assert len(found) == MAX_SHOWN


def test_forbids_are_no_near_misses_and_an_empty_set_has_none() -> None:
    assert nearest('@id("f") forbid(principal, action, resource) when { context.peer.verified == false };') == ()
    assert nearest() == ()


def test_a_permitted_call_and_a_forbidden_one_carry_no_near_misses() -> None:
    assert nearest('@id("a") permit(principal, action, resource);', READ_ITEMS) == ()
    assert nearest('@id("a") forbid(principal, action, resource);', READ_ITEMS) == ()


def test_a_condition_on_the_time_is_explained_by_the_time() -> None:
    text = f'@id("a") {PERMIT_GET} when {{ context has now && context.now < datetime("2026-01-01") }};'
    (miss,) = nearest(text)
    assert miss.failed == ('context.now < datetime("2026-01-01")',)


def test_a_policy_of_which_nothing_failed_is_no_near_miss() -> None:
    """Only an evaluator that contradicts itself shows one; a reason without a part that failed would be none."""
    denying = engine('@id("a") permit(principal, action, resource);', evaluator=lambda q, p, e: Answer(False, (), ()))
    assert denying.judge(get(), AT).nearest == ()


def test_the_memory_of_probes_is_bounded() -> None:
    """Callers choose who is near: any of these groups of permits is built by asking for one more service."""
    permit = '@id("n{0}") permit(principal, action, resource == {1}) when {{ principal.path == "/x" }};'
    judge = engine("\n".join(permit.format(n, f'Livery::Service::"spiffe://demo.test/s{n}"') for n in range(300)))
    for n in range(300):
        assert judge.judge(get(resource=f"spiffe://demo.test/s{n}"), AT).nearest[0].policy == f"p0/n{n}"
    assert len(judge._nearest._probes) <= 256


def test_the_nearest_is_found_among_thousands() -> None:
    permit = '@id("n{0}") permit(principal == Livery::Workload::"spiffe://demo.test/w{0}", action, resource == Livery::Service::"spiffe://demo.test/s{0}");'
    many = "\n".join(permit.format(n) for n in range(10 * MAX_PROBED))
    assert nearest(many, READ_ITEMS, path="/orders/1")[0].policy == "p1/orders-may-read"


def test_a_failing_explanation_does_not_change_the_decision() -> None:
    from livery_policy import cedar
    from livery_policy.model.decision import Reason

    calls: list[object] = []

    def failing_second(question: cedar.Question, policies: cedar.PolicySet, entities: cedar.Entities) -> cedar.Answer:
        calls.append(question)
        if len(calls) > 1:
            raise RuntimeError("no explanation today")
        return cedar.ask(question, policies, entities)

    judgement = engine(READ_ITEMS, evaluator=failing_second).judge(get("/x"), AT)
    assert (judgement.reason, judgement.nearest) == (Reason.NOT_PERMITTED, ())
    assert len(calls) == 2
