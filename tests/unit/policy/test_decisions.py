"""Every decision has an id, is in the log before it is given, and can be explained while it is remembered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from livery.runtime.metrics import Metrics
from livery_policy import cedar
from livery_policy.decisions.log import DecisionLog, Written
from livery_policy.decisions.point import DecisionPoint, random_id
from livery_policy.errors import UnknownDecision
from livery_policy.explanation import sentences
from livery_policy.model.calls import Call, Peer, Unreadable
from livery_policy.model.decision import Reason
from tests.fakes.clock import FakeClock
from tests.pki import NOW
from tests.policies import EVIL, INVENTORY, ORDERS, READ_ITEMS, engine, get

TOKEN = "3f1d2c4b-0000-4111-8222-933344445555"


class Lines:
    """A sink that keeps its lines, or refuses them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.broken = False

    def write_line(self, line: str) -> None:
        if self.broken:
            raise OSError("disk full")
        self.lines.append(line)

    @property
    def last(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.lines[-1])
        return found


class Point:
    """A decision point with its sink."""

    def __init__(self, *policies: str, written: Written = Written.ALL, kept: int = 100, explained: int = 100) -> None:
        self.sink = Lines()
        self.log = DecisionLog(self.sink, written=written, kept=kept)
        self.clock = FakeClock(NOW)
        self.metrics = Metrics()
        self.point = DecisionPoint(self.clock, self.log, self.metrics, explained_per_second=explained)
        self.point.use(engine(*policies))

    @property
    def lost(self) -> float:
        text = self.metrics.render().decode()
        return float(text.split("\nlivery_decision_lines_lost_total ")[1].split("\n")[0])


def test_a_line_has_the_call_the_decision_and_the_version() -> None:
    made = Point(READ_ITEMS)
    decision = made.point.decide(get("/orders/1", x_unknown="v"), "spiffe://demo.test/pep")
    line = made.sink.last
    assert line["id"] == decision.id
    assert (line["type"], line["outcome"], line["reason"]) == ("decision", "deny", "not_permitted")
    assert (line["principal"], line["action"], line["resource"]) == (ORDERS, "http:GET", INVENTORY)
    assert (line["path"], line["asked_by"]) == ("/orders/1", "spiffe://demo.test/pep")
    assert line["version"] == made.point.version.as_dict()  # type: ignore[union-attr]
    assert line["dropped"] == ["context.http.headers.x-unknown"]
    assert line["nearest"][0]["policy"] == "p0/orders-may-read"  # type: ignore[index]


def test_an_allowed_call_names_its_policies() -> None:
    made = Point(READ_ITEMS)
    made.point.decide(get(), "pep")
    assert made.sink.last["policies"] == ["p0/orders-may-read"]


def test_queries_headers_and_claims_stay_out_of_the_log() -> None:
    made = Point(READ_ITEMS)
    jwt = {"iss": "i", "sub": "hidden-sub", "aud": "a"}
    http = {"path": "/items/1", "query": "hidden-query", "headers": {"x-tenant": ["hidden-header"]}}
    made.point.decide(Call(ORDERS, "GET", INVENTORY, {"http": http, "jwt": jwt}), "pep")
    assert "hidden" not in made.sink.lines[-1]


@pytest.mark.parametrize("family", ["http", "grpc"])
def test_a_query_that_came_with_the_path_stays_out_of_the_log_too(family: str) -> None:
    """An enforcement point that forgets to cut it off is told so, and its callers' secrets are not written down."""
    made = Point(READ_ITEMS)
    action = "GET" if family == "http" else "grpc"
    decision = made.point.decide(Call(ORDERS, action, INVENTORY, {family: {"path": "/items/1?key=hidden"}}), "pep")
    assert (decision.reason, made.sink.last["path"]) == (Reason.BAD_PATH, "/items/1?…")
    assert "hidden" not in made.sink.lines[-1]


def test_what_looks_like_a_secret_is_taken_out() -> None:
    """An agent's ID is its join token until that is spent."""
    made = Point(READ_ITEMS)
    made.point.decide(get(principal=f"spiffe://demo.test/spire/agent/join_token/{TOKEN}"), "pep")
    assert TOKEN not in made.sink.lines[-1]
    assert "join_token/3f1d…" in made.sink.lines[-1]


def test_texts_of_any_length_and_kind_make_one_line_of_bounded_length() -> None:
    made = Point(READ_ITEMS)
    hostile = "\n\x1b[31m\u2028" * 5000
    made.point.decide(Call(hostile, hostile, hostile, {"http": {"path": hostile, hostile: hostile}}), "pep")
    assert len(made.sink.lines[-1]) < 20_000
    assert not {"\n", "\x1b"} & set(made.sink.lines[-1])
    assert json.loads(made.sink.lines[-1])["reason"] == "bad_subject"


def test_half_a_surrogate_pair_does_not_cost_the_line() -> None:
    made = Point(READ_ITEMS)
    made.point.decide(Call("\ud800", "GET", INVENTORY, {}), "pep")
    assert (made.sink.last["principal"], made.lost) == ("\\ud800", 0)


@pytest.mark.parametrize(("written", "count"), [(Written.ALL, 2), (Written.DENIED, 1), (Written.NONE, 0)])
def test_which_decisions_get_a_line_is_configured(written: Written, count: int) -> None:
    made = Point(READ_ITEMS, written=written)
    for path in ("/items/1", "/orders/1"):
        made.point.decide(get(path), "pep")
    assert len(made.sink.lines) == count


def test_a_line_that_cannot_be_written_is_counted_and_the_decision_stands() -> None:
    made = Point(READ_ITEMS)
    made.sink.broken = True
    assert made.point.decide(get(), "pep").allowed
    assert made.lost == 1


def test_a_flood_of_allowed_calls_does_not_push_a_denial_out_of_memory() -> None:
    made = Point(READ_ITEMS, kept=10)
    denied = made.point.decide(get("/orders"), "pep")
    ids = [made.point.decide(get(), "pep").id for _ in range(50)]
    assert made.point.explain(denied.id).decision.id == denied.id
    assert made.point.explain(ids[-1])
    with pytest.raises(UnknownDecision):
        made.point.explain(ids[0])


LONG = "x" * 100_000
LARGE: dict[str, Any] = {
    "a query": {"http": {"path": "/orders", "query": LONG}},
    "a path": {"http": {"path": f"/orders/{LONG}"}},
    "a gRPC path": {"grpc": {"path": f"/a.B/{LONG}"}},
    "lines": {"http": {"path": "/orders", "headers": {"x-tenant": [LONG]}}},
    "many lines": {"http": {"path": "/orders", "headers": {"x-tenant": ["x"] * 10_000}}},
    "what nobody knows": {"http": {"path": "/orders"}, "more": [[]] * 10_000},
    "a name": {"http": {"path": "/orders"}, LONG: 1},
    "a port": {"port": 5432, "more": {str(n): n for n in range(10_000)}},
}


@pytest.mark.parametrize("context", LARGE.values(), ids=LARGE.keys())
def test_what_is_kept_of_a_call_is_bounded_whatever_it_holds(context: Any) -> None:
    """Callers choose the size of a query, and thousands of decisions are kept. What is shown stays the same."""
    made = Point(READ_ITEMS)
    action = "grpc" if "grpc" in context else "connect" if "port" in context else "GET"
    decision = made.point.decide(Call(ORDERS, action, INVENTORY, context), "pep")
    record = made.point.explain(decision.id)
    assert record.as_dict() == made.sink.last
    assert (len(repr(record.call)) < 2000, record.is_whole) == (True, False)


def test_of_parties_that_are_none_the_beginning_is_kept() -> None:
    made = Point(READ_ITEMS)
    record = made.point.explain(made.point.decide(Call(LONG, LONG, LONG, {}), "pep").id)
    assert record.as_dict() == made.sink.last
    assert len(repr(record.call)) < 2000


def test_a_call_that_was_cut_is_not_explained_as_if_it_were_whole() -> None:
    made = Point(READ_ITEMS, explained=0)
    context = {"http": {"path": "/orders", "query": LONG}}
    decision = made.point.decide(Call(ORDERS, "GET", INVENTORY, context), "pep")
    assert made.point.explain(decision.id).decision.nearest == ()


def test_a_usual_call_is_kept_whole() -> None:
    made = Point(READ_ITEMS)
    http = {"path": "/items/1", "host": "a.test", "query": "q" * 500, "headers": {"x-tenant": ["a"], "x-role": ["b"]}}
    jwt = {"iss": "i" * 100, "sub": "s", "aud": ["a"], "groups": ["g" * 30] * 20}
    decision = made.point.decide(Call(ORDERS, "GET", INVENTORY, {"http": http, "jwt": jwt}), "pep")
    assert made.point.explain(decision.id).is_whole


def test_beyond_the_budget_a_denial_is_explained_when_somebody_asks() -> None:
    """A flood of denials costs no more than the budget; a second later there is a new one."""
    made = Point(READ_ITEMS, explained=2)
    decisions = [made.point.decide(get("/orders"), "pep") for _ in range(4)]
    assert [len(d.nearest) for d in decisions] == [1, 1, 0, 0]
    assert made.point.explain(decisions[3].id).decision.nearest == decisions[0].nearest
    made.clock.advance(1.0)
    assert made.point.decide(get("/orders"), "pep").nearest


def test_explanations_take_a_tenth_of_the_time_however_few_they_are() -> None:
    """With thousands of policies one costs milliseconds, and two hundred a second would be all there is."""
    made = Point(READ_ITEMS)

    def slow(question: cedar.Question, policies: cedar.PolicySet, entities: cedar.Entities) -> cedar.Answer:
        made.clock.advance(0.03)
        return cedar.ask(question, policies, entities)

    made.point.use(engine(READ_ITEMS, evaluator=slow))
    assert [len(made.point.decide(get("/orders"), "pep").nearest) for _ in range(4)] == [1, 1, 0, 0]


def test_a_decision_of_older_policies_is_not_explained_by_newer_ones() -> None:
    made = Point(READ_ITEMS, explained=0)
    decision = made.point.decide(get("/orders"), "pep")
    made.point.use(engine(READ_ITEMS, READ_ITEMS))
    assert made.point.explain(decision.id).decision.nearest == ()


def test_what_a_door_could_not_read_is_a_decision_too() -> None:
    made = Point(READ_ITEMS)
    refused = Unreadable(Reason.BAD_SUBJECT, "its type is 'user'")
    decision = made.point.decide(get(), "pep", refused=refused)
    assert (decision.reason, made.sink.last["detail"]) == (Reason.BAD_SUBJECT, "its type is 'user'")


def test_decisions_are_counted_by_their_class() -> None:
    made = Point(READ_ITEMS)
    for path in ("/items/1", "/orders", "/orders", "//"):
        made.point.decide(get(path), "pep")
    text = made.metrics.render().decode()
    assert 'livery_decisions_total{outcome="deny",reason="not_permitted"} 2.0' in text
    assert 'livery_decisions_total{outcome="allow",reason="permitted"} 1.0' in text
    assert "livery_decision_seconds_count 4.0" in text


def test_ids_are_no_serial_numbers_and_no_spiffe_ids() -> None:
    ids = {random_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(i.startswith("d-") and len(i) == 26 for i in ids)


@pytest.mark.parametrize(
    ("policies", "call", "expected"),
    [
        (READ_ITEMS, get(), "because a policy permits it: p0/orders-may-read"),
        (READ_ITEMS, get("/orders"), "because no policy permits it"),
        (READ_ITEMS, get("//"), "because the path is not in normal form: the path has an empty segment ('//')"),
        (
            '@id("f") forbid(principal in Livery::TrustDomain::"evil.test", action, resource);',
            get(principal=EVIL),
            "because a policy forbids it: p0/f",
        ),
        (
            READ_ITEMS,
            Call(ORDERS, "connect", INVENTORY, {"port": "x"}, Peer(verified=True)),
            "because the call's context cannot be read: context.port must be a whole number, and is a string",
        ),
    ],
)
def test_a_decision_reads_as_sentences(policies: str, call: Call, expected: str) -> None:
    made = Point(policies)
    record = made.point.explain(made.point.decide(call, "pep").id).as_dict()
    lines = sentences(record)
    assert lines[0].split(":")[0] == ("allowed" if record["outcome"] == "allow" else "denied")
    assert lines[1] == expected
    assert lines[-1].startswith("policies sha256:")
