"""A slice answers exactly as the whole set: the decision, the deciding policies and the errors, for every call."""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livery_policy import cedar
from livery_policy.engine.cache import DecisionCache, project
from livery_policy.engine.compiling import CompiledSet
from livery_policy.engine.decide import Engine
from livery_policy.engine.slices import Slices, whole
from livery_policy.model.calls import Asked, Call, CallReader, Peer
from livery_policy.model.entities import ACTION, SERVICE, WORKLOAD, EntityBook, Pair
from tests.policies import AT, VOCABULARY, compiled

DOMAINS = ("demo.test", "other.test")
PATHS = ("/orders", "/inventory", "/ns/shop", "/ns/shop/sa/a", "/ns/shop/sa/b", "/ns/bank/sa/a", "/ns")
IDS = tuple(f"spiffe://{domain}{path}" for domain in DOMAINS for path in PATHS)
PREFIXES = tuple(f"spiffe://{domain}{path}" for domain in DOMAINS for path in ("/ns", "/ns/shop", "/ns/shop/sa"))
ACTIONS = ("http:GET", "http:POST", "http:DELETE", "http:other", "grpc", "connect")
GROUPS = ("call", "http", "http:read", "http:write")
HTTP_CONDITIONS = (
    'context.http.path like "/items/*"',
    'context.http.path == "/"',
    'context.http.host == "a.test"',
    "context.http has port && context.http.port == 443",
    # Overflows for any port but 1: an error at run time that no validator sees.
    "context.http has port && context.http.port * 9223372036854775807 > 0",
    'context.http.headers has "x-tenant" && context.http.headers["x-tenant"].contains("a")',
    'context.http has query && context.http.query like "*x*"',
    'context has jwt && context.jwt.sub == "s"',
    'context has jwt && context.jwt has groups && context.jwt.groups.contains("g")',
    'context.http.method == "GET"',
    "context.http has query",
    'context.http.headers has "x-role"',
)
PLAIN_CONDITIONS = (
    "context.peer.verified",
    'principal.segments.contains("shop")',
    "principal.trust_domain == resource.trust_domain",
    'resource.path like "/ns/*"',
    'principal in Livery::PathPrefix::"spiffe://demo.test/ns/shop"',
    "context.peer.verified && context.peer.verified == true",
)


# A policy that errors for some calls, in every mesh: errors must come out alike too.
BROKEN = """
@id("broken") permit(principal, action in Livery::Action::"http", resource)
when { context.http has port && context.http.port * 9223372036854775807 > 0 };
"""


@dataclass(frozen=True)
class Mesh:
    """A set of policies, and all that is asked of it."""

    compiled: CompiledSet
    book: EntityBook


def _scope(rng: random.Random, kind: str) -> str:
    name = "principal" if kind == "Workload" else "resource"
    return rng.choice(
        [
            name,
            f'{name} == Livery::{kind}::"{rng.choice(IDS)}"',
            f'{name} == Livery::{kind}::"{rng.choice(IDS)}"',
            f'{name} in Livery::{kind}::"{rng.choice(IDS)}"',
            f'{name} in Livery::PathPrefix::"{rng.choice(PREFIXES)}"',
            f'{name} in Livery::TrustDomain::"{rng.choice(DOMAINS)}"',
            f"{name} is Livery::{kind}",
            f'{name} is Livery::{kind} in Livery::PathPrefix::"{rng.choice(PREFIXES)}"',
            f'{name} is Livery::{kind} in Livery::TrustDomain::"{rng.choice(DOMAINS)}"',
        ]
    )


def _policy(rng: random.Random, number: int) -> str:
    http = rng.random() < 0.7
    if http:
        action = rng.choice(
            [
                f'action in Livery::Action::"{rng.choice(GROUPS[1:])}"',
                f'action == Livery::Action::"{rng.choice(ACTIONS[:4])}"',
                'action in [Livery::Action::"http:GET", Livery::Action::"http:write"]',
            ]
        )
    else:
        action = rng.choice(
            ["action", 'action in Livery::Action::"call"', f'action == Livery::Action::"{rng.choice(ACTIONS)}"']
        )
    conditions = rng.sample(HTTP_CONDITIONS + PLAIN_CONDITIONS if http else PLAIN_CONDITIONS, rng.randint(0, 2))
    text = " ".join(f"{rng.choice(['when', 'when', 'unless'])} {{ {condition} }}" for condition in conditions)
    effect = "forbid" if rng.random() < 0.25 else "permit"
    return f'@id("n{number}") {effect}({_scope(rng, "Workload")}, {action}, {_scope(rng, "Service")}) {text};'


def mesh(seed: int, size: int) -> Mesh:
    rng = random.Random(seed)
    made = compiled("\n".join([BROKEN, *(_policy(rng, n) for n in range(size))]))
    return Mesh(made, EntityBook(made.schema))


def _context(rng: random.Random, action: str) -> dict[str, object]:
    if action == "connect":
        return {"port": rng.choice([443, 5432])}
    headers = rng.choice([{}, {"x-tenant": ["a"]}, {"x-tenant": ["b", "a"]}, {"x-role": ["a"]}])
    if action == "grpc":
        return {"grpc": {"path": "/a.B/C", "headers": headers}}
    http: dict[str, object] = {"path": rng.choice(["/", "/items/1"]), "headers": headers}
    http["host"] = rng.choice(["a.test", "b.test"])
    if action == "http:other":
        http["method"] = "PURGE"
    if rng.random() < 0.5:
        http["port"] = rng.choice([1, 443])
    if rng.random() < 0.5:
        http["query"] = rng.choice(["x=1", "y=2"])
    context: dict[str, object] = {"http": http}
    if rng.random() < 0.5:
        context["jwt"] = {"iss": "i", "sub": rng.choice("st"), "aud": "a"} | rng.choice([{}, {"groups": ["g"]}])
    return context


def call(rng: random.Random) -> Call:
    action = rng.choice(ACTIONS)
    return Call(rng.choice(IDS), action, rng.choice(IDS), _context(rng, action), Peer(verified=rng.random() < 0.7))


def answers(of: Mesh, slices: Slices, one: Call) -> tuple[cedar.Answer, cedar.Answer]:
    """What the slice says, asked with the trimmed context, and what the whole set says, asked with all of it."""
    pair, asked = of.book.pair(one.principal, one.resource), CallReader(VOCABULARY).read(one)
    assert isinstance(pair, Pair)
    assert isinstance(asked, Asked), asked
    found = slices.find(pair, asked.action)
    everything = whole(of.compiled)

    def ask(context: object, handle: cedar.PolicySet) -> cedar.Answer:
        text = msgspec.json.encode(context).decode()
        uids = ((WORKLOAD, pair.principal), (ACTION, asked.action), (SERVICE, pair.resource))
        return sorted_answer(cedar.ask(cedar.Question(*uids, text), handle, pair.handle))

    return ask(project(asked.context, found.paths), found.handle), ask(asked.context, everything.handle)


def sorted_answer(answer: cedar.Answer) -> cedar.Answer:
    return cedar.Answer(answer.allowed, tuple(sorted(answer.reasons)), tuple(sorted(answer.errors)))


@pytest.mark.parametrize("seed", range(6))
def test_a_slice_answers_exactly_as_the_whole_set(seed: int) -> None:
    """Decision, deciding ids and error texts, over random sets and calls; enough to catch every mutant of the index."""
    of = mesh(seed, 60)
    slices, rng = Slices(of.compiled), random.Random(seed + 1000)
    seen = set()
    for _ in range(400):
        by_slice, by_whole = answers(of, slices, call(rng))
        assert by_slice == by_whole
        seen |= {by_whole.allowed, "error" if by_whole.errors else "no error"}
    assert seen == {True, False, "error", "no error"}, "the calls do not exercise the set"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), size=st.integers(0, 25))
def test_a_slice_answers_as_the_whole_set_for_sets_of_any_size(seed: int, size: int) -> None:
    of = mesh(seed, size)
    slices, rng = Slices(of.compiled), random.Random(seed)
    for _ in range(10):
        by_slice, by_whole = answers(of, slices, call(rng))
        assert by_slice == by_whole


def test_bounded_memories_change_no_answer() -> None:
    of = mesh(3, 60)
    small, large = Slices(of.compiled, slices=2, calls=3), Slices(of.compiled)
    rng = random.Random(3)
    for _ in range(300):
        one = call(rng)
        assert answers(of, small, one) == answers(of, large, one)
        assert (len(small._slices) <= 2, len(small._calls) <= 3) == (True, True)


@pytest.mark.parametrize("seed", range(3))
def test_a_cached_answer_is_the_answer_that_was_not_cached(seed: int) -> None:
    """The key holds all that the answer depends on: calls are drawn so that most come back with one thing changed."""
    of = mesh(seed, 40)
    cached = Engine(of.compiled, VOCABULARY, cache=DecisionCache(500))
    plain = Engine(of.compiled, VOCABULARY)
    rng = random.Random(seed)
    for _ in range(1500):
        one = call(rng)
        assert cached.judge(one, AT, explain=False) == plain.judge(one, AT, explain=False)
