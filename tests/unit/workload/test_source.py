"""An identity that is always current: from a real Workload API on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from livery.identity import SpiffeId, UntrustedJwtSvid, WrongAudience
from livery.runtime.transport.listen import DoorIdentity
from livery.wire import workload_api
from livery.workload import (
    InvalidEndpoint,
    MalformedResponse,
    NoIdentity,
    NotEntitled,
    RequestRefused,
    WorkloadApiUnavailable,
    WorkloadError,
    WorkloadSource,
    X509Context,
)
from livery.workload.watch import WELL_AFTER, Watch
from tests.fakes.clock import FakeClock
from tests.fakes.workload_api import FakeWorkloadApi, x509_message
from tests.pki import TestCa


@pytest.fixture
def ca() -> TestCa:
    return TestCa("example.org", now=datetime.now(UTC))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FakeWorkloadApi]:
    async with FakeWorkloadApi(tmp_path / "w") as api:
        yield api


async def until(condition: Callable[[], object]) -> None:
    """Wait (at most 10 s) until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def message(ca: TestCa, *paths: str) -> workload_api.X509SVIDResponse:
    return x509_message([ca.issue(path) for path in paths or ("/a",)], ca.bundle())


async def test_it_gives_svid_and_bundles_of_one_message(api: FakeWorkloadApi, ca: TestCa) -> None:
    partner = TestCa("partner.test", now=ca.now)
    svids = [ca.issue("/first"), ca.issue("/second")]
    await api.say(x509_message(svids, ca.bundle(), partner.bundle()))
    async with WorkloadSource(api.endpoint) as source:
        identity: DoorIdentity = source
        assert identity.svid() == svids[0]
        assert {str(name) for name in identity.bundles()} == {"example.org", "partner.test"}
        assert source.context() == X509Context(tuple(svids), source.bundles())
        assert source.problem is None


async def test_WE_3_every_stream_says_that_it_means_the_workload_api(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    async with WorkloadSource(api.endpoint):
        assert api.metadata[0]["workload.spiffe.io"] == "true"


async def test_an_svid_can_be_chosen_by_its_hint_and_of_two_the_first_counts(api: FakeWorkloadApi, ca: TestCa) -> None:
    """WL-11."""
    said = message(ca, "/a", "/b", "/c")
    said.svids[1].hint = said.svids[2].hint = "internal"
    await api.say(said)
    async with WorkloadSource(api.endpoint, hint="internal") as source:
        assert source.svid().id.path == "/b"
    with pytest.raises(NotEntitled, match="hint"):
        async with WorkloadSource(api.endpoint, hint="external"):
            pass


async def test_a_rotation_arrives_and_subscribers_hear_of_it(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    heard: list[X509Context | None] = []
    async with WorkloadSource(api.endpoint) as source:
        stop = source.on_update(heard.append)
        before = source.svid()
        await api.say(message(ca))
        await until(lambda: source.svid() is not before)
        assert heard == [source.context()]
        stop()
        await api.say(message(ca, "/b"))
        await until(lambda: source.svid().id.path == "/b")
        assert len(heard) == 1


async def test_what_did_not_change_stays_the_same_object(api: FakeWorkloadApi, ca: TestCa) -> None:
    """Doors and clients compare by identity, and a repeated message must not make them dial again."""
    first, second = ca.issue("/a"), ca.issue("/b")
    await api.say(x509_message([first, second], ca.bundle()))
    async with WorkloadSource(api.endpoint) as source:
        svid, bundles = source.svid(), source.bundles()
        await api.say(x509_message([first, ca.issue("/b")], ca.bundle()))
        await until(lambda: source.context().svids[1] != second)
        assert source.svid() is svid
        assert source.bundles() is bundles


async def test_a_subscriber_that_fails_harms_nobody(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    heard: list[object] = []
    async with WorkloadSource(api.endpoint) as source:
        source.on_update(lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
        source.on_update(heard.append)
        await api.say(message(ca, "/b"))
        await until(lambda: heard)
        assert source.svid().id.path == "/b"


async def test_WL_6_a_bundle_that_is_no_longer_sent_is_dropped(api: FakeWorkloadApi, ca: TestCa) -> None:
    svid, partner = ca.issue("/a"), TestCa("partner.test", now=ca.now)
    await api.say(x509_message([svid], ca.bundle(), partner.bundle()))
    async with WorkloadSource(api.endpoint) as source:
        await api.say(x509_message([svid], ca.bundle()))
        await until(lambda: partner.trust_domain not in source.bundles())
        assert ca.trust_domain in source.bundles()


def _nothing(said: Any) -> None:
    said.Clear()


def _no_id(said: Any) -> None:
    said.svids[0].spiffe_id = ""


def _no_key(said: Any) -> None:
    said.svids[0].x509_svid_key = b""


def _no_chain(said: Any) -> None:
    said.svids[0].x509_svid = b""


def _no_bundle(said: Any) -> None:
    said.svids[0].bundle = b""


def _garbled_chain(said: Any) -> None:
    said.svids[0].x509_svid = said.svids[0].x509_svid[:-1]


def _garbled_bundle(said: Any) -> None:
    said.svids[0].bundle = b"-----BEGIN CERTIFICATE-----"


def _other_id(said: Any) -> None:
    said.svids[0].spiffe_id = "spiffe://example.org/other"


def _second_is_wrong(said: Any) -> None:
    said.svids.add()


def _federated_under_a_wrong_name(said: Any) -> None:
    said.federated_bundles["spiffe://partner.test/path"] = b""


def _key_of_another(said: Any) -> None:
    said.svids[0].x509_svid_key = TestCa("x.test").issue("/x").key_der()


MALFORMED = [
    _nothing,
    _no_id,
    _no_key,
    _no_chain,
    _no_bundle,
    _garbled_chain,
    _garbled_bundle,
    _other_id,
    _second_is_wrong,
    _federated_under_a_wrong_name,
    _key_of_another,
]


@pytest.mark.parametrize("break_it", MALFORMED)
async def test_WL_8_a_malformed_message_is_reported_and_discarded_whole(
    api: FakeWorkloadApi, ca: TestCa, break_it: Callable[[Any], None]
) -> None:
    await api.say(message(ca))
    async with WorkloadSource(api.endpoint) as source:
        good = source.context()
        broken = message(ca, "/b")
        break_it(broken)
        await api.say(broken)
        await until(lambda: source.problem is not None)
        assert isinstance(source.problem, MalformedResponse)
        assert source.context() is good
        await api.say(message(ca, "/c"))
        await until(lambda: source.svid().id.path == "/c")
        assert source.problem is None
        assert api.streams_opened == 1


async def test_WL_12_when_entitlement_ends_mid_stream_everything_is_dropped_until_it_returns(
    api: FakeWorkloadApi, ca: TestCa
) -> None:
    await api.say(message(ca))
    heard: list[X509Context | None] = []
    async with WorkloadSource(api.endpoint) as source:
        source.on_update(heard.append)
        await api.refuse(grpc.StatusCode.PERMISSION_DENIED)
        await until(lambda: heard)
        assert heard == [None]
        for ask in (source.svid, source.bundles, source.context):
            with pytest.raises(NotEntitled, match="no identity issued"):
                ask()
        await api.say(message(ca, "/again"))
        await until(lambda: len(heard) > 1)
        assert source.svid().id.path == "/again"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
async def test_WE_8_what_is_held_is_kept_while_the_server_is_not_well(
    api: FakeWorkloadApi, ca: TestCa, code: grpc.StatusCode
) -> None:
    await api.say(message(ca))
    async with WorkloadSource(api.endpoint) as source:
        held = source.context()
        await api.refuse(code)
        await until(lambda: source.problem)
        assert isinstance(source.problem, WorkloadApiUnavailable)
        assert source.context() is held
        await api.say(message(ca, "/b"))
        await until(lambda: source.svid().id.path == "/b")


async def test_WL_3_when_the_agent_restarts_the_source_comes_back_by_itself(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    async with WorkloadSource(api.endpoint) as source:
        held = source.context()
        await api.stop()
        await until(lambda: source.problem)
        assert source.context() is held
        await api.start()
        await api.say(message(ca, "/b"))
        await until(lambda: source.svid().id.path == "/b")


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED])
async def test_WE_8_what_cannot_become_better_is_not_tried_again(api: FakeWorkloadApi, code: grpc.StatusCode) -> None:
    await api.refuse(code)
    async with asyncio.timeout(5):
        with pytest.raises(RequestRefused):
            async with WorkloadSource(api.endpoint):
                pass
    assert api.streams_opened == 1


async def test_an_application_may_start_before_the_agent(tmp_path: Path, ca: TestCa) -> None:
    api = FakeWorkloadApi(tmp_path / "w")
    source = WorkloadSource(api.endpoint)
    await source.start()
    with pytest.raises(WorkloadApiUnavailable, match="cannot be reached"):
        await source.wait_ready(0.3)
    await api.start()
    await api.say(message(ca))
    await source.wait_ready(10)
    await source.close()
    await api.stop()


async def test_an_agent_that_has_nothing_to_say_yet_is_waited_for_and_then_said(api: FakeWorkloadApi) -> None:
    source = WorkloadSource(api.endpoint)
    with pytest.raises(NoIdentity):
        source.svid()
    await source.start()
    with pytest.raises(NoIdentity, match="no answer in") as raised:
        await source.wait_ready(0.1)
    assert "entry" in raised.value.fix
    await source.close()


async def test_a_process_without_an_entry_is_told_so(api: FakeWorkloadApi) -> None:
    await api.refuse(grpc.StatusCode.PERMISSION_DENIED)
    source = WorkloadSource(api.endpoint)
    await source.start()
    with pytest.raises(NotEntitled) as raised:
        await source.wait_ready(0.2)
    assert "entry" in raised.value.fix
    await source.close()


async def test_tries_are_spaced_and_do_not_hammer_the_agent(api: FakeWorkloadApi) -> None:
    await api.refuse(grpc.StatusCode.PERMISSION_DENIED)
    source = WorkloadSource(api.endpoint)
    await source.start()
    with pytest.raises(NotEntitled):
        await source.wait_ready(1.0)
    assert 2 <= api.streams_opened <= 7
    await source.close()


async def test_closing_twice_and_starting_twice_is_fine(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    source = WorkloadSource(api.endpoint)
    await source.start()
    await source.start()
    await source.wait_ready(10)
    assert api.streams_opened == 1
    await source.close()
    await source.close()
    assert source.svid().id.path == "/a"
    with pytest.raises(WorkloadError, match="not started"):
        await source.fetch_jwt("them")


def test_a_malformed_endpoint_is_refused_at_once() -> None:
    with pytest.raises(InvalidEndpoint):
        WorkloadSource("unix:relative")


async def test_no_key_or_token_is_in_any_repr_or_log(
    api: FakeWorkloadApi, ca: TestCa, caplog: pytest.LogCaptureFixture
) -> None:
    token = ca.jwt_svid("/a", "them")
    svid = ca.issue("/a")
    await api.say(x509_message([svid], ca.bundle()))
    api.jwt_answer = workload_api.JWTSVIDResponse(svids=[workload_api.JWTSVID(spiffe_id=str(svid.id), svid=token)])
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logged:
        async with WorkloadSource(api.endpoint) as source:
            jwt = await source.fetch_jwt("them")
            broken = x509_message([svid], ca.bundle())
            broken.svids[0].spiffe_id = "spiffe://example.org/other"
            await api.say(broken)
            await until(lambda: source.problem)
            seen = "".join(
                map(repr, (source.context(), source.svid(), jwt, source.problem, logged, source, vars(source)))
            )
    seen += caplog.text
    secret = svid.private_key.private_numbers().private_value
    for form in (token, str(secret), f"{secret:x}", svid.key_der().hex(), repr(svid.key_der())[2:-1], "PRIVATE KEY"):
        assert form not in seen


async def test_a_jwt_svid_is_fetched_for_an_audience(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    api.jwt_answer = workload_api.JWTSVIDResponse(
        svids=[workload_api.JWTSVID(spiffe_id="spiffe://example.org/a", svid=ca.jwt_svid("/a", "them"), hint="out")]
    )
    async with WorkloadSource(api.endpoint) as source:
        svid = await source.fetch_jwt("them", SpiffeId.parse("spiffe://example.org/a"))
        await source.fetch_jwt(["one", "two"])
    assert (str(svid.id), svid.audience, svid.hint) == ("spiffe://example.org/a", ("them",), "out")
    assert (list(api.jwt_requests[0].audience), api.jwt_requests[0].spiffe_id) == (["them"], "spiffe://example.org/a")
    assert (list(api.jwt_requests[1].audience), api.jwt_requests[1].spiffe_id) == (["one", "two"], "")


async def test_a_refused_or_malformed_jwt_answer_is_an_error_of_ours(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    other = workload_api.JWTSVID(spiffe_id="spiffe://example.org/b", svid=ca.jwt_svid("/a", "them"))
    cases: list[tuple[Any, type[WorkloadError]]] = [
        (grpc.StatusCode.PERMISSION_DENIED, NotEntitled),
        (grpc.StatusCode.INVALID_ARGUMENT, RequestRefused),
        (grpc.StatusCode.UNAVAILABLE, WorkloadApiUnavailable),
        (workload_api.JWTSVIDResponse(), MalformedResponse),
        (workload_api.JWTSVIDResponse(svids=[workload_api.JWTSVID(svid="a.b.c")]), MalformedResponse),
        (workload_api.JWTSVIDResponse(svids=[other]), MalformedResponse),
    ]
    async with WorkloadSource(api.endpoint) as source:
        for answer, error in cases:
            api.jwt_answer = answer
            with pytest.raises(error):
                await source.fetch_jwt("them")


async def test_a_token_is_verified_with_the_bundle_of_its_own_domain_and_rotation_is_followed(
    api: FakeWorkloadApi, ca: TestCa
) -> None:
    await api.say(message(ca))
    api.jwt_bundles = {"spiffe://example.org": ca.bundle().jwt_jwks()}
    stranger = TestCa("example.org", now=ca.now)
    async with WorkloadSource(api.endpoint) as source:
        verified = await source.validate_jwt(ca.jwt_svid("/a", "us"), "us")
        assert (str(verified.id), verified.audience) == ("spiffe://example.org/a", ("us",))
        with pytest.raises(WrongAudience):
            await source.validate_jwt(ca.jwt_svid("/a", "them"), "us")
        with pytest.raises(UntrustedJwtSvid):
            await source.validate_jwt(stranger.jwt_svid("/a", "us"), "us")
        api.jwt_bundles = {"spiffe://example.org": stranger.bundle().jwt_jwks()}
        await api.say(message(ca))

        async def is_followed() -> bool:
            try:
                await source.validate_jwt(stranger.jwt_svid("/a", "us"), "us")
            except UntrustedJwtSvid:
                return False
            return True

        async with asyncio.timeout(10):
            while not await is_followed():
                await asyncio.sleep(0.01)
        with pytest.raises(UntrustedJwtSvid):
            await source.validate_jwt(ca.jwt_svid("/a", "us"), "us")


async def test_a_source_that_is_started_again_follows_the_jwt_bundles_again(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    api.jwt_bundles = {"spiffe://example.org": ca.bundle().jwt_jwks()}
    source, later = WorkloadSource(api.endpoint), TestCa("example.org", now=ca.now)
    async with source:
        await source.validate_jwt(ca.jwt_svid("/a", "us"), "us")
    api.jwt_bundles = {"spiffe://example.org": later.bundle().jwt_jwks()}
    async with source, asyncio.timeout(10):
        while True:
            with contextlib.suppress(UntrustedJwtSvid):
                await source.validate_jwt(later.jwt_svid("/a", "us"), "us")
                break
            await asyncio.sleep(0.01)


async def test_an_expired_token_is_refused(api: FakeWorkloadApi, ca: TestCa) -> None:
    await api.say(message(ca))
    api.jwt_bundles = {"spiffe://example.org": ca.bundle().jwt_jwks()}
    async with WorkloadSource(api.endpoint) as source:
        with pytest.raises(UntrustedJwtSvid):
            await source.validate_jwt(ca.jwt_svid("/a", "us", -timedelta(hours=1)), "us")


async def test_a_stream_that_was_well_for_a_while_is_opened_again_at_once() -> None:
    """And those that end at once are not: the fourth of these lasts, the others do not."""
    clock, slept, opened = FakeClock(), [], 0

    async def stream() -> AsyncIterator[None]:
        nonlocal opened
        opened += 1
        clock.advance(WELL_AFTER if opened == 4 else 0)
        for nothing in ():
            yield nothing

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)
        await asyncio.sleep(0)

    clock.sleep = sleep  # type: ignore[method-assign]  # it waits for nobody
    following = asyncio.create_task(Watch("a stream", stream, lambda message: message, clock).run())
    await until(lambda: len(slept) >= 6)
    following.cancel()
    assert [seconds > 0 for seconds in slept[:6]] == [False, True, True, False, True, True]


async def test_a_message_that_says_what_is_known_tells_nobody() -> None:
    heard: list[str | None] = []

    async def stream() -> AsyncIterator[str]:
        for message in ("first", "first", "second"):
            yield message
        await asyncio.Event().wait()

    following = asyncio.create_task(Watch("a stream", stream, str, FakeClock(), heard.append).run())
    await until(lambda: "second" in heard)
    following.cancel()
    assert heard == ["first", "second"]
