"""The AuthZEN endpoints, row by row of the standard, and the order in which a request is refused."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from livery.identity import SpiffeId
from livery.runtime.metrics import Metrics
from livery_policy import cedar
from livery_policy.decisions.log import DecisionLog
from livery_policy.decisions.point import DecisionPoint
from livery_policy.doors.admission import Admission
from livery_policy.doors.authzen import EVALUATION, EVALUATIONS, METADATA, AuthzenDoor, AuthzenLimits
from tests.asgi import ANONYMOUS, Asker, process, workload
from tests.fakes.clock import FakeClock
from tests.pki import HOUR, NOW, TestCa
from tests.policies import INVENTORY, ORDERS, PERMIT_GET, READ_ITEMS, engine

PEP = "spiffe://demo.test/pep"
CA = TestCa("demo.test")
UID = 4242


class Door:
    """A door with its clock, as one set of policies and rights."""

    def __init__(
        self, *policies: str, base: str | None = "https://localhost:8443", evaluator: cedar.Evaluator = cedar.ask
    ) -> None:
        self.clock = FakeClock(NOW)
        self.log = DecisionLog(None)
        point = DecisionPoint(self.clock, self.log, Metrics())
        point.use(engine(*policies, evaluator=evaluator))
        admission = Admission([UID], [SpiffeId.parse(PEP)])
        limits = AuthzenLimits(max_body=64 * 1024, max_evaluations=10)
        self.app = AuthzenDoor(point, admission, self.clock, limits, lambda: base)

    def as_(self, peer: Any) -> Asker:
        return Asker(self.app, peer)

    @property
    def local(self) -> Asker:
        return self.as_(process(UID))


@pytest.fixture
def door() -> Door:
    return Door(READ_ITEMS)


def question(path: str = "/items/1", **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "subject": {"type": "spiffe", "id": ORDERS},
        "action": {"name": "GET"},
        "resource": {"type": "service", "id": INVENTORY},
        "context": {"http": {"path": path}},
    }
    return {name: value for name, value in (document | changes).items() if value is not None}


# AZ-1, AZ-2: the request's and the answer's form.


async def test_AZ_1_a_subject_an_action_and_a_resource_are_asked_about(door: Door) -> None:
    with_properties = question(subject={"type": "spiffe", "id": ORDERS, "properties": {"team": "shop"}})
    for document in (question(), with_properties):
        assert (await door.local.post(EVALUATION, document)).json["decision"] is True


@pytest.mark.parametrize(("path", "decision"), [("/items/1", True), ("/orders/1", False)])
async def test_AZ_2_an_answer_is_a_boolean_and_a_context_of_id_and_class_only(
    door: Door, path: str, decision: bool
) -> None:
    reply = await door.local.post(EVALUATION, question(path))
    answer = reply.json
    assert (answer["decision"], reply.headers["cache-control"]) == (decision, "no-store")
    assert set(answer) == {"decision", "context"}
    assert set(answer["context"]) == {"id", "reason"}
    assert answer["context"]["reason"] == ("permitted" if decision else "not_permitted")


async def test_AZ_2_the_full_reason_is_in_the_log_under_the_answers_id(door: Door) -> None:
    answer = (await door.local.post(EVALUATION, question("/orders/1"))).json
    record = door.log.find(answer["context"]["id"])
    assert record.decision.nearest[0].policy == "p0/orders-may-read"
    assert record.asked_by == f"uid:{UID}/pid:4711"


# AZ-3: unknown members, order, and the top level.


async def test_AZ_3_unknown_members_are_ignored_and_order_does_not_matter(door: Door) -> None:
    document = dict(reversed(question(future={"a": [1, None, 1.5]}).items()))
    document["subject"]["future"] = None
    assert (await door.local.post(EVALUATION, document)).json["decision"] is True


@pytest.mark.parametrize("document", [[], [question()], "x", 1, None, True])
async def test_AZ_3_the_top_level_is_an_object(door: Door, document: object) -> None:
    assert (await door.local.post(EVALUATION, document)).status == 400


# AZ-4: a missing required attribute is 400 with a message; a denial is 200.


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": None},
        {"action": None},
        {"resource": None},
        {"subject": {"type": "spiffe"}},
        {"subject": {"id": ORDERS}},
        {"subject": {"type": "spiffe", "id": 7}},
        {"subject": {"type": ["spiffe"], "id": ORDERS}},
        {"subject": ORDERS},
        {"subject": {"type": "spiffe", "id": ORDERS, "properties": []}},
        {"action": {}},
        {"action": {"name": True}},
        {"action": "GET"},
        {"resource": {"type": "service"}},
        {"resource": [INVENTORY]},
        {"context": "x"},
        {"context": []},
    ],
)
async def test_AZ_4_a_missing_or_mistyped_attribute_is_400_with_a_message(door: Door, changes: dict[str, Any]) -> None:
    reply = await door.local.post(EVALUATION, question(**changes))
    assert reply.status == 400
    assert reply.headers["content-type"].startswith("text/plain")
    assert next(iter(changes)) in reply.text


async def test_AZ_4_a_null_is_no_object(door: Door) -> None:
    document = question()
    document["context"] = None
    assert (await door.local.post(EVALUATION, document)).status == 400


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"context": {"http": {"path": "/orders"}}}, "not_permitted"),
        ({"subject": {"type": "user", "id": "alice"}}, "bad_subject"),
        ({"subject": {"type": "user", "id": ORDERS}}, "bad_subject"),
        ({"subject": {"type": "spiffe", "id": "alice"}}, "bad_subject"),
        ({"resource": {"type": "document", "id": INVENTORY}}, "bad_resource"),
        ({"resource": {"type": "service", "id": ""}}, "bad_resource"),
        ({"action": {"name": "can_read"}}, "bad_action"),
        ({"context": {"http": {"path": "/items/1", "port": None}}}, "bad_context"),
        ({"context": {"http": {"path": "/items/1", "port": 1.5}}}, "bad_context"),
        ({"context": {"http": {"path": "/items/../x"}}}, "bad_path"),
        ({"context": None}, "bad_context"),
    ],
)
async def test_AZ_4_a_denial_is_200_whatever_its_class(door: Door, changes: dict[str, Any], reason: str) -> None:
    reply = await door.local.post(EVALUATION, question(**changes))
    assert (reply.status, reply.json["decision"], reply.json["context"]["reason"]) == (200, False, reason)


# AZ-5: content types.


@pytest.mark.parametrize("kind", [None, "text/plain", "application/jsonx", "application/json,text/plain", ""])
async def test_AZ_5_another_content_type_is_refused(door: Door, kind: str | None) -> None:
    headers = [("content-type", kind)] if kind is not None else []
    assert (await door.local("POST", EVALUATION, json.dumps(question()).encode(), headers)).status == 400


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_AZ_5_json_in_and_json_out(door: Door, kind: str) -> None:
    reply = await door.local("POST", EVALUATION, json.dumps(question()).encode(), [("content-type", kind)])
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")


async def test_two_content_types_are_none(door: Door) -> None:
    kinds = [("content-type", "application/json"), ("content-type", "text/plain")]
    assert (await door.local("POST", EVALUATION, json.dumps(question()).encode(), kinds)).status == 400


async def test_AZ_5_a_compressed_body_is_refused(door: Door) -> None:
    assert (await door.local.post(EVALUATION, question(), [("content-encoding", "gzip")])).status == 400


# AZ-6: the request's id.


@pytest.mark.parametrize("peer", [process(UID), process(1), ANONYMOUS], ids=["200", "403", "401"])
async def test_AZ_6_the_requests_id_comes_back_with_every_status(door: Door, peer: Any) -> None:
    sent = "bfe9eb29-ab87 4ca3/\x7f~"
    assert (await door.as_(peer).post(EVALUATION, question(), [("X-Request-ID", sent)])).headers["x-request-id"] == sent


async def test_AZ_6_it_comes_back_from_a_malformed_request_too(door: Door) -> None:
    reply = await door.local.post(EVALUATION, b"{", [("X-Request-ID", "r-1")])
    assert (reply.status, reply.headers["x-request-id"]) == (400, "r-1")


# AZ-7, AZ-8, AZ-9: batches.


async def decisions(door: Door, document: dict[str, Any]) -> list[bool]:
    reply = await door.local.post(EVALUATIONS, document)
    assert reply.status == 200, reply.body
    assert set(reply.json) == {"evaluations"}
    return [item["decision"] for item in reply.json["evaluations"]]


GOOD, BAD = {"context": {"http": {"path": "/items/1"}}}, {"context": {"http": {"path": "/orders/1"}}}


async def test_AZ_7_the_top_level_gives_defaults_that_an_item_replaces_whole(door: Door) -> None:
    other = {"subject": {"type": "spiffe", "id": "spiffe://demo.test/billing"}}
    assert await decisions(door, question(evaluations=[{}, BAD, other, {"action": {"name": "PUT"}}])) == [
        True,
        False,
        False,
        False,
    ]


async def test_AZ_7_nothing_is_merged_into_an_item(door: Door) -> None:
    """A context of an item that has no path does not take the path of the default."""
    items = [{"context": {"http": {"host": "a.test"}}}, {"subject": {"id": ORDERS}}]
    reply = await door.local.post(EVALUATIONS, question(evaluations=items))
    first, second = reply.json["evaluations"]
    assert first["context"]["reason"] == "bad_context"
    assert second["context"]["error"]["message"] == "subject.type is missing"


@pytest.mark.parametrize("evaluations", [None, []])
async def test_AZ_7_without_evaluations_it_is_a_single_one(door: Door, evaluations: list[Any] | None) -> None:
    reply = await door.local.post(EVALUATIONS, question(evaluations=evaluations))
    assert reply.json["decision"] is True


async def test_AZ_7_a_batch_may_be_complete_in_its_items(door: Door) -> None:
    assert await decisions(door, {"evaluations": [question(), question("/orders")]}) == [True, False]


@pytest.mark.parametrize(
    ("semantic", "items", "expected"),
    [
        (None, [GOOD, BAD, GOOD], [True, False, True]),
        ("execute_all", [BAD, GOOD], [False, True]),
        ("deny_on_first_deny", [GOOD, BAD, GOOD], [True, False]),
        ("deny_on_first_deny", [GOOD, GOOD], [True, True]),
        ("deny_on_first_deny", [GOOD, {"subject": {}}, GOOD], [True, False]),
        ("permit_on_first_permit", [BAD, GOOD, BAD], [False, True]),
        ("permit_on_first_permit", [BAD, BAD], [False, False]),
    ],
)
async def test_AZ_8_a_batch_ends_with_the_item_that_decides_it(
    door: Door, semantic: str | None, items: list[Any], expected: list[bool]
) -> None:
    options = {"future": 1} | ({"evaluations_semantic": semantic} if semantic else {})
    assert await decisions(door, question(evaluations=items, options=options)) == expected


@pytest.mark.parametrize("options", [{"evaluations_semantic": "all"}, {"evaluations_semantic": 1}, [], "x"])
async def test_AZ_8_an_unknown_semantic_is_400(door: Door, options: object) -> None:
    assert (await door.local.post(EVALUATIONS, question(evaluations=[GOOD], options=options))).status == 400


async def test_AZ_9_an_item_that_fails_is_denied_with_its_error_and_the_others_are_decided(door: Door) -> None:
    reply = await door.local.post(EVALUATIONS, {"evaluations": [question(), {"subject": {}}, question()]})
    first, second, third = reply.json["evaluations"]
    assert (first["decision"], second["decision"], third["decision"]) == (True, False, True)
    assert second["context"] == {"error": {"status": 400, "message": "subject.id is missing"}}


@pytest.mark.parametrize("evaluations", [{}, "x", 1, [1], [None], [[]], [{}] * 11])
async def test_AZ_9_a_batch_that_is_no_list_of_objects_or_too_long_is_400(door: Door, evaluations: object) -> None:
    assert (await door.local.post(EVALUATIONS, question(evaluations=evaluations))).status == 400


async def test_AZ_9_the_answer_to_a_batch_has_no_decision_of_its_own(door: Door) -> None:
    assert "decision" not in (await door.local.post(EVALUATIONS, question(evaluations=[GOOD]))).json


async def test_a_batch_lets_others_in_between_by_what_its_items_cost() -> None:
    """Each item may be as dear as its sender likes; nobody waits for all of them."""
    turns: list[int] = []
    done: list[int] = []

    def slow(question: cedar.Question, policies: cedar.PolicySet, entities: cedar.Entities) -> cedar.Answer:
        door.clock.advance(0.01)
        done.append(1)
        return cedar.ask(question, policies, entities)

    async def other() -> None:
        while len(done) < 5:
            turns.append(len(done))
            await asyncio.sleep(0)

    door = Door(READ_ITEMS, evaluator=slow)
    waiting = asyncio.create_task(other())
    await door.local.post(EVALUATIONS, question(evaluations=[GOOD] * 5))
    await waiting
    assert {1, 2, 3, 4} <= set(turns)


async def test_the_properties_that_are_named_in_the_log_are_bounded(door: Door) -> None:
    many = {f"p{n}": n for n in range(1000)}
    document = question(subject={"type": "spiffe", "id": ORDERS, "properties": many})
    document["resource"]["properties"] = many
    answer = (await door.local.post(EVALUATION, document)).json
    named = door.log.find(answer["context"]["id"]).decision.dropped
    assert named == tuple(f"subject.properties.p{n}" for n in range(20))


# AZ-10 to AZ-12 are about searches, which are not served: the metadata says so.


async def test_AZ_10_AZ_11_AZ_12_searches_are_not_offered(door: Door) -> None:
    assert not [name for name in (await door.local("GET", METADATA)).json if name.startswith("search")]


# AZ-13: metadata.


async def test_AZ_13_the_metadata_names_the_endpoints_under_one_https_identifier() -> None:
    for peer in (process(UID), ANONYMOUS):
        reply = await Door().as_(peer)("GET", METADATA)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.json == {
            "policy_decision_point": "https://localhost:8443",
            "access_evaluation_endpoint": f"https://localhost:8443{EVALUATION}",
            "access_evaluations_endpoint": f"https://localhost:8443{EVALUATIONS}",
        }


async def test_AZ_13_without_an_https_address_there_is_no_metadata() -> None:
    assert (await Door(base=None).local("GET", METADATA)).status == 404


# AZ-14: who may ask, and strict JSON.


async def test_AZ_14_without_credentials_it_is_401_with_a_challenge(door: Door) -> None:
    reply = await door.as_(ANONYMOUS).post(EVALUATION, question())
    assert reply.status == 401
    assert "www-authenticate" in reply.headers
    assert "certificate" in reply.text


async def test_AZ_14_a_request_that_came_by_no_server_of_ours_is_401(door: Door) -> None:
    assert (await door.as_(None).post(EVALUATION, question())).status == 401


@pytest.mark.parametrize(
    "peer", [process(UID + 1), process(0), process(os.geteuid()), workload(CA, "/other"), workload(CA, "/pep/x")]
)
async def test_AZ_14_who_is_known_and_not_admitted_is_403(door: Door, peer: Any) -> None:
    """The list is the list: it does not name root, so root is not admitted."""
    reply = await door.as_(peer).post(EVALUATION, question())
    assert (reply.status, reply.text[:20]) == (403, "you are not admitted")


async def test_the_enforcement_point_vouches_for_its_caller_and_not_for_where_it_is() -> None:
    text = f'@id("a") {PERMIT_GET} when {{ context.peer.verified && !(context.peer has ip) }};'
    context = {"http": {"path": "/"}, "peer": {"verified": False, "ip": "192.0.2.7"}}
    assert (await Door(text).local.post(EVALUATION, question(context=context))).json["decision"] is True


async def test_AZ_14_who_is_admitted_by_spiffe_id_may_ask_about_anybody(door: Door) -> None:
    assert (await door.as_(workload(CA, "/pep")).post(EVALUATION, question())).json["decision"] is True


async def test_AZ_14_the_same_path_in_another_trust_domain_is_not_admitted(door: Door) -> None:
    assert (await door.as_(workload(TestCa("evil.test"), "/pep")).post(EVALUATION, question())).status == 403


async def test_AZ_14_a_certificate_that_has_ended_is_401(door: Door) -> None:
    asker = door.as_(workload(CA, "/pep"))
    door.clock.advance(HOUR)
    assert (await asker.post(EVALUATION, question())).status == 401


async def test_AZ_14_who_may_not_ask_is_told_so_before_the_body_is_read(door: Door) -> None:
    """A stranger's body costs nothing, and its faults do not matter."""
    for peer, status in ((ANONYMOUS, 401), (process(1), 403)):
        assert (await door.as_(peer)("POST", EVALUATION, b"{", [])).status == status


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":1,}',
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b"[" * 10_000,
        nested(10_000),
        nested(33),
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"context":{"http":{"path":"/items/1","path":"/x"}}}',
        b'{"a":"' + b'\\"' * 20_000,
    ],
    ids=lambda body: ascii(body[:24]),
)
async def test_AZ_14_json_that_two_readers_could_read_differently_is_400(door: Door, body: bytes) -> None:
    reply = await door.local.post(EVALUATION, body)
    assert (reply.status, reply.text.startswith("the body")) == (400, True)


async def test_AZ_14_a_duplicate_name_is_refused_even_where_nobody_looks(door: Door) -> None:
    body = json.dumps(question()).encode()[:-1] + b',"future":[{"a":{"b":1,"b":2}}]}'
    assert (await door.local.post(EVALUATION, body)).text == "the body has an object with one name twice"


async def test_AZ_14_colons_and_brackets_in_strings_are_only_text(door: Door) -> None:
    document = question(future={"a:b": ':{[\\":"', "{": "}" * 40, "[": "[" * 40})
    assert (await door.local.post(EVALUATION, document)).status == 200


async def test_AZ_14_a_body_over_the_limit_is_413_however_it_comes(door: Door) -> None:
    part = b" " * 40_000
    for body in (part + part, [part, part]):
        reply = await door.local("POST", EVALUATION, body, [("content-type", "application/json")])
        assert (reply.status, reply.text.startswith("the body")) == (413, True)
        assert reply.headers["connection"] == "close"  # what is still to come is not read


async def test_a_body_that_was_cut_is_not_decided_on_however_complete_it_looks(door: Door) -> None:
    asker = Asker(door.app, process(UID))
    messages = [
        {"type": "http.request", "body": json.dumps(question()).encode(), "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await door.app(asker._scope("POST", EVALUATION, [("content-type", "application/json")], {}), receive, send)
    assert sent[0]["status"] == 400


async def test_a_body_in_parts_is_one_body(door: Door) -> None:
    body = json.dumps(question()).encode()
    parts = [body[n : n + 7] for n in range(0, len(body), 7)]
    assert (await door.local("POST", EVALUATION, parts, [("content-type", "application/json")])).status == 200


@pytest.mark.parametrize(("method", "path"), [("GET", EVALUATION), ("PUT", EVALUATIONS), ("POST", METADATA)])
async def test_another_method_is_405_and_says_which(door: Door, method: str, path: str) -> None:
    reply = await door.local(method, path)
    assert (reply.status, "allow" in reply.headers) == (405, True)


async def test_without_policies_nobody_decides() -> None:
    clock = FakeClock(NOW)
    point = DecisionPoint(clock, DecisionLog(None), Metrics())
    app = AuthzenDoor(point, Admission([UID], []), clock, AuthzenLimits(), lambda: None)
    reply = await Asker(app, process(UID)).post(EVALUATION, question())
    assert (reply.status, reply.json["decision"], reply.json["context"]["reason"]) == (200, False, "no_decision")
