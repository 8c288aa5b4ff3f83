"""The small doors: the administration socket, gRPC health, the places for streams, and the numbers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from livery.identity import BundleMap, Selector, SpiffeId, TrustDomain
from livery.runtime.caller import Caller, PeerProcess, calling
from livery.runtime.metrics import Metrics
from livery_agent.doors.admin import AdminDoor
from livery_agent.doors.health import Health, UnknownService
from livery_agent.doors.places import Places, TooManyCalls
from livery_agent.errors import WorkloadUnattested
from livery_agent.identities.entry import Entry
from livery_agent.identities.snapshot import Identity, Snapshot, Snapshots
from livery_agent.inspection.document import Scene, document
from livery_agent.inspection.status import Status
from livery_agent.inspection.telemetry import watch
from livery_agent.schedule import Renewal
from tests.fakes.clock import START, FakeClock
from tests.pki import TestCa

TD = TrustDomain("example.org")
CA = TestCa(TD, now=START)
HOUR = timedelta(hours=1)


def identity(name: str, **changes: Any) -> Identity:
    of = Entry(name, SpiffeId.of(TD, f"/{name}"), frozenset({Selector.parse("unix:uid:1")}), hint="h")
    svid = CA.issue(f"/{name}")
    return replace(Identity(of, svid, Renewal(START, svid.not_after), of.edition), **changes)


UNSIGNED = {"svid": None, "renewal": None, "made_for": None}


def scene(*identities: Identity, synced: bool = True) -> Scene:
    node = CA.issue("/spire/agent/x509pop/1")
    status = Status(START, synced_at=START)
    snapshot = Snapshot(TD, BundleMap.of(CA.bundle(sequence=4)), identities, synced)
    return Scene(snapshot, status, node, Renewal(START, node.not_after), 2, 3, "ca:1", "9.9")


async def ask(door: AdminDoor, path: str, method: str = "GET") -> tuple[int, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    await door({"type": "http", "method": method, "path": path}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def door(of: Scene) -> AdminDoor:
    return AdminDoor(lambda: of, Metrics(), FakeClock())


async def test_live_says_so_whatever_the_state():
    assert (await ask(door(scene(synced=False)), "/live"))[0] == 200


async def test_ready_says_why_it_is_not():
    assert await ask(door(scene()), "/ready") == (200, b'{"ready": true}\n')
    asleep = scene(synced=False)
    assert b"not synchronised" in (await ask(door(asleep), "/ready"))[1]
    asleep.status.failed("node", "the CA is away", START)
    status, body = await ask(door(asleep), "/ready")
    assert (status, json.loads(body)["why"]) == (503, "the CA is away")
    asleep.status.succeeded("node")
    assert b"not synchronised" in (await ask(door(asleep), "/ready"))[1], "what is over is no reason"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_the_socket_is_read_only(method: str):
    assert (await ask(door(scene()), "/inspect", method))[0] == 405


async def test_an_unknown_page_lists_the_known_ones():
    status, body = await ask(door(scene()), "/")
    assert (status, json.loads(body)["pages"]) == (404, ["/inspect", "/live", "/metrics", "/ready"])


async def test_a_head_request_has_no_body():
    assert await ask(door(scene()), "/live", "HEAD") == (200, b"")


def test_inspection_shows_each_identity_with_its_state_and_times():
    looked_at = scene(
        identity("a"),
        identity("b", **UNSIGNED),
        identity("c", **UNSIGNED, refusal="policy says no"),
        identity("d", renewal=Renewal(START - HOUR, START)),
    )
    shown = document(looked_at, START)
    by_name = {i["entry_id"]: i for i in shown["identities"]}
    assert {name: i["state"] for name, i in by_name.items()} == {
        "a": "valid",
        "b": "pending",
        "c": "refused",
        "d": "expired",
    }
    assert by_name["a"]["renew_at"] == "2026-11-02T12:30:00.000+00:00"
    assert by_name["a"]["selectors"] == ["unix:uid:1"]
    assert by_name["c"]["refusal"] == "policy says no"
    assert (shown["schema"], shown["ready"], shown["streams"], shown["jwt_svids"]) == (1, True, 3, 2)
    assert shown["bundles"][0]["sequence"] == 4
    assert shown["node"]["spiffe_id"] == "spiffe://example.org/spire/agent/x509pop/1"
    json.dumps(shown)


def test_inspection_shows_failures_and_skew():
    looked_at = scene()
    looked_at.status.failed("sync", "the CA is away", START)
    looked_at.status.failed("sync", "the CA is away", START)
    looked_at.status.note_skew("node", "expired at the CA")
    shown = document(looked_at, START)
    assert shown["failing"] == [
        {"work": "sync", "error": "the CA is away", "at": "2026-11-02T12:00:00.000+00:00", "times": 2}
    ]
    assert shown["last_error"]["times"] == 2
    assert shown["clock_skew"] == "expired at the CA"
    looked_at.status.succeeded("sync")
    assert document(looked_at, START)["failing"] == []
    assert document(looked_at, START)["last_error"] is not None


def test_an_agent_that_never_attested_can_be_looked_at():
    shown = document(replace(scene(synced=False), node=None, node_renewal=None), START)
    assert (shown["node"], shown["ready"]) == (None, False)


def test_every_number_can_be_read():
    metrics, looked_at = Metrics(), scene(identity("a"), identity("b", **UNSIGNED))
    watch(metrics, lambda: looked_at, FakeClock())
    text = metrics.render().decode()
    assert 'livery_agent_identities{state="valid"} 1.0' in text
    assert 'livery_agent_identities{state="pending"} 1.0' in text
    assert "livery_agent_soonest_expiry_seconds 3600.0" in text
    assert "livery_agent_bundle_sequence 4.0" in text
    assert "livery_agent_streams 3.0" in text


def test_the_numbers_of_an_empty_agent_can_be_read_too():
    metrics = Metrics()
    bare = Scene(Snapshot(TD, BundleMap()), Status(START), None, None, 0, 0, "", "")
    watch(metrics, lambda: bare, FakeClock())
    assert "livery_agent_node_expiry_seconds NaN" in metrics.render().decode()


class Request:
    def __init__(self, service: str) -> None:
        self.service = service


class Context:
    def __init__(self) -> None:
        self.written: asyncio.Queue[Any] = asyncio.Queue()

    async def write(self, message: Any) -> None:
        await self.written.put(message.status)

    def peer(self) -> str:
        return f"unix:{CONNECTION}"


CONNECTION = "/run/connection"


def user(uid: int) -> Any:
    """Calls are made by this user, for the length of the block."""
    return calling(Caller(CONNECTION, "unix", process=PeerProcess(1, uid, uid, -1, 1)))


async def test_health_is_serving_once_synchronised_and_tells_those_who_watch():
    snapshots = Snapshots(scene(synced=False).snapshot)
    health, context = Health(snapshots, Places("streams", 1, 1)), Context()
    assert (await health.Check(Request(""), context)).status == 2, "NOT_SERVING"
    with user(1):
        watching = asyncio.create_task(health.Watch(Request("SpiffeWorkloadAPI"), context))
    assert await context.written.get() == 2
    snapshots.publish(replace(snapshots.current, synced=True))
    assert await context.written.get() == 1
    assert (await health.Check(Request(""), context)).status == 1, "SERVING"
    snapshots.publish(snapshots.current)
    await asyncio.sleep(0)
    assert context.written.empty(), "nothing new, nothing said"
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_health_of_something_else_is_unknown():
    health, context = Health(Snapshots(scene().snapshot), Places("streams", 1, 1)), Context()
    with pytest.raises(UnknownService):
        await health.Check(Request("something.else"), context)
    with user(1):
        watching = asyncio.create_task(health.Watch(Request("something.else"), context))
    assert await context.written.get() == 3, "SERVICE_UNKNOWN"
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_who_watches_the_health_holds_a_place_for_as_long_as_he_does():
    """It asks for no identity, and so anybody may: without a bound it would be everybody's memory."""
    streams = Places("streams", 8, 1)
    health, context = Health(Snapshots(scene().snapshot), streams), Context()
    with user(1):
        watching = asyncio.create_task(health.Watch(Request(""), context))
        await context.written.get()
        assert len(streams) == 1
        with pytest.raises(TooManyCalls):
            await health.Watch(Request(""), context)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert len(streams) == 0


def test_places_are_bounded_in_all_and_for_each_user():
    places, context = Places("streams", total=3, per_user=2), Context()
    with user(1), places.place(context) as process, places.place(context):
        assert process.uid == 1
        with pytest.raises(TooManyCalls, match="user 1 has too many streams"), places.place(context):
            raise AssertionError("there was no place")
        with user(2), places.place(context):
            with user(3), pytest.raises(TooManyCalls, match="too many streams are open"), places.place(context):
                raise AssertionError("there was no place")
            assert len(places) == 3
        assert len(places) == 2
    assert len(places) == 0


def test_a_place_is_given_back_however_the_call_ends():
    places = Places("streams", total=1, per_user=1)
    with user(1):
        with pytest.raises(ZeroDivisionError), places.place(Context()):
            raise ZeroDivisionError
        with places.place(Context()):
            assert len(places) == 1


def test_a_call_that_came_over_no_unix_socket_has_no_place():
    with calling(Caller(CONNECTION, "192.0.2.1:4711")), pytest.raises(WorkloadUnattested):
        Places("streams", 1, 1).place(Context()).__enter__()
