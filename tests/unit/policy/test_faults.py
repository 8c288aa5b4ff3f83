"""What the validator says is told once, and with what to do."""

from __future__ import annotations

import pytest

from livery_policy.engine.compiling import compile_policies
from livery_policy.engine.source import PolicyFile
from livery_policy.errors import InvalidPolicies
from livery_policy.model.vocabulary import Vocabulary

HTTP = 'permit (principal, action in Livery::Action::"http", resource)'


def messages(statement: str) -> list[str]:
    with pytest.raises(InvalidPolicies) as refused:
        compile_policies([PolicyFile("a", "a.cedar", f'@id("a") {statement};')], Vocabulary(headers=("x-known",)))
    return [finding.message for finding in refused.value.findings]


@pytest.mark.parametrize(
    ("statement", "advice"),
    [
        ('permit (principal, action == Livery::Action::"GET", resource)', 'did you mean Livery::Action::"http:GET"?'),
        ('permit (principal, action == Action::"grpc", resource)', 'did you mean Livery::Action::"grpc"?'),
        ('permit (principal, action in Livery::Action::"http:reads", resource)', 'Livery::Action::"http:read"?'),
        ('permit (principal == Workload::"spiffe://a/b", action, resource)', "did you mean Livery::Workload?"),
        ('permit (principal == User::"alice", action, resource)', "there are Livery::Workload, Livery::Service"),
        ("permit (principal is Livery::Service, action, resource)", "a Livery::Workload calls"),
        (f'{HTTP} when {{ context.http.headers["x-other"] == ["a"] }}', "list the header in `headers`"),
        (f'{HTTP} when {{ context has jwt && context.jwt.groups == ["a"] }}', "list the claim in `claims`"),
        (
            f'{HTTP} when {{ context.http.headers["x-known"] == ["a"] }}',
            'write `context.http.headers has "x-known" &&` before it',
        ),
        (f"{HTTP} when {{ context.http.port == 80 }}", "write `context.http has port &&` before it"),
        (f'{HTTP} when {{ context.jwt.iss == "a" }}', "write `context has jwt &&` before it"),
        (
            'permit (principal, action, resource) when { context.http.path == "/" }',
            'say which calls it is for: action in Livery::Action::"http"',
        ),
        (f"{HTTP} when {{ context.port == 80 }}", 'say which calls it is for: action == Livery::Action::"connect"'),
    ],
)
def test_a_fault_is_told_once_with_what_to_do(statement: str, advice: str) -> None:
    (message,) = messages(statement)
    assert advice in message


def test_of_a_fault_in_several_actions_one_is_named_and_the_others_are_counted() -> None:
    (message,) = messages(f'{HTTP} when {{ context.http.pth == "/" }}')
    assert message == 'attribute `http.pth` in context for Livery::Action::"http:DELETE" and 7 more not found'


def test_two_faults_of_one_policy_are_two() -> None:
    assert len(messages(f"{HTTP} when {{ context.http.pth == 5 && principal.name == 5 }}")) == 2
