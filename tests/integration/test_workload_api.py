"""The SPIFFE Workload API and Endpoint, row by row, over the real socket of a real agent."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from livery.identity import (
    BundleMap,
    Selector,
    TrustBundle,
    TrustDomain,
    X509Svid,
    parse_chain,
    verify_jwt,
    verify_x509,
)
from livery.wire import workload_api
from livery.workload import WorkloadSource
from livery_agent.doors.workload_api import WorkloadApi
from tests.integration.agents import HEADER, Town, entry, town
from tests.pki import TestCa

TD = TrustDomain("example.org")
PARTNER = TrustDomain("partner.test")
NOBODY = Selector.parse("unix:uid:987654")

Stub = workload_api.SpiffeWorkloadAPIAsyncStub
X509 = workload_api.X509SVIDRequest()
STREAMS = {
    "FetchX509SVID": workload_api.X509SVIDRequest(),
    "FetchX509Bundles": workload_api.X509BundlesRequest(),
    "FetchJWTBundles": workload_api.JWTBundlesRequest(),
}
UNARY = {
    "FetchJWTSVID": workload_api.JWTSVIDRequest(audience=["them"]),
    "ValidateJWTSVID": workload_api.ValidateJWTSVIDRequest(audience="them", svid="x.y.z"),
}


@pytest.fixture
async def ours() -> AsyncIterator[Town]:
    """An agent with two identities for this very user."""
    async with town(entry("orders", created_at=1, hint="main"), entry("inventory", created_at=2)) as here:
        yield here


@pytest.fixture
async def api(ours: Town) -> AsyncIterator[Stub]:
    async with ours.client() as stub:
        yield stub


async def read(call: Any, timeout: float = 10) -> Any:
    """The next message of a stream; fails the test if there is none."""
    message = await asyncio.wait_for(call.read(), timeout)
    assert message is not grpc.aio.EOF
    return message


async def refusal(awaitable: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(awaitable, 10)
    return refused.value.code(), refused.value.details() or ""


def call(stub: Stub, rpc: str, metadata: Any = HEADER) -> Any:
    """One call of any RPC; what it gives can be awaited for the first answer."""
    if rpc in STREAMS:
        return getattr(stub, rpc)(STREAMS[rpc], metadata=metadata).read()
    return getattr(stub, rpc)(UNARY[rpc], metadata=metadata)


def ids(message: Any) -> list[str]:
    return [svid.spiffe_id for svid in message.svids]


# The Workload API


async def test_WL_1_x509_and_jwt_profiles_are_served(api: Stub):
    assert ids(await call(api, "FetchX509SVID"))
    assert (await call(api, "FetchX509Bundles")).bundles
    assert ids(await call(api, "FetchJWTSVID"))
    assert (await call(api, "FetchJWTBundles")).bundles
    token = (await call(api, "FetchJWTSVID")).svids[0].svid
    request = workload_api.ValidateJWTSVIDRequest(audience="them", svid=token)
    assert (await api.ValidateJWTSVID(request, metadata=HEADER)).spiffe_id == "spiffe://example.org/orders"


async def test_WL_2_the_service_is_not_extended(ours: Town):
    standard = {*STREAMS, *UNARY, "FetchWITSVID", "FetchWITBundles"}
    assert {name for name in vars(WorkloadApi) if name[0].isupper()} == standard
    async with grpc.aio.insecure_channel(ours.endpoint) as channel:
        extra = channel.unary_unary("/SpiffeWorkloadAPI/FetchEverything")
        assert (await refusal(extra(b"", metadata=HEADER)))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_WL_3_streams_stay_open_and_a_client_of_ours_reconnects_when_one_ends(ours: Town):
    async with WorkloadSource(ours.endpoint) as source:
        await source.wait_ready()
        first = source.svid()
        await ours.stop_agent()
        await ours.start_agent()
        async with asyncio.timeout(20):
            while source.svid() == first:
                await asyncio.sleep(0.05)
        assert source.problem is None


async def test_WL_4_every_message_is_the_whole_state(ours: Town, api: Stub):
    stream = api.FetchX509SVID(X509, metadata=HEADER)
    assert ids(await read(stream)) == ["spiffe://example.org/orders", "spiffe://example.org/inventory"]
    ours.ca.add(entry("third", created_at=3))
    assert len(ids(await read(stream))) == 3, "not the new one alone"
    stream.cancel()


async def test_WL_5_the_first_answer_comes_at_once_and_later_ones_with_their_cause(ours: Town, api: Stub):
    for rpc in STREAMS:
        await asyncio.wait_for(call(api, rpc), 1)
    stream = api.FetchX509Bundles(STREAMS["FetchX509Bundles"], metadata=HEADER)
    before = await read(stream)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting := asyncio.ensure_future(stream.read())), 0.4)
    ours.ca.rotate()
    assert await asyncio.wait_for(waiting, 5) != before
    stream.cancel()


async def test_WL_5_what_changes_for_others_alone_is_no_message(ours: Town, api: Stub):
    stream = api.FetchX509SVID(X509, metadata=HEADER)
    before = await read(stream)
    ours.ca.add(entry("others", NOBODY))
    await ours.until(lambda account: len([i for i in account["identities"] if i["serial"]]) == 3)
    ours.ca.revise("orders")
    after = await read(stream)
    assert after.svids[0].x509_svid != before.svids[0].x509_svid, "the next message is of our own change"
    stream.cancel()


async def test_WL_6_a_bundle_or_svid_that_is_gone_is_gone_from_the_next_message(ours: Town, api: Stub):
    partner = TestCa(PARTNER, now=ours.clock.now())
    ours.ca.orders.federated["partner.test"] = partner.bundle()
    ours.ca.revise("inventory", federates_with=(PARTNER,))
    await ours.until(lambda account: len(account["bundles"]) == 2)
    stream = api.FetchX509SVID(X509, metadata=HEADER)
    message = await read(stream)
    while not message.federated_bundles:
        message = await read(stream)
    del ours.ca.entries["inventory"]
    message = await read(stream)
    assert (ids(message), dict(message.federated_bundles)) == (["spiffe://example.org/orders"], {})
    stream.cancel()


async def test_WL_7_a_mandatory_field_left_out_is_invalid(api: Stub):
    invalid = (grpc.StatusCode.INVALID_ARGUMENT, "audience must be specified")
    assert await refusal(api.FetchJWTSVID(workload_api.JWTSVIDRequest(), metadata=HEADER)) == invalid
    assert await refusal(api.FetchJWTSVID(workload_api.JWTSVIDRequest(audience=[""]), metadata=HEADER)) == invalid
    request = workload_api.ValidateJWTSVIDRequest(svid="x.y.z")
    assert await refusal(api.ValidateJWTSVID(request, metadata=HEADER)) == invalid
    request = workload_api.ValidateJWTSVIDRequest(audience="them")
    code, text = await refusal(api.ValidateJWTSVID(request, metadata=HEADER))
    assert (code, text) == (grpc.StatusCode.INVALID_ARGUMENT, "svid must be specified")


async def test_WL_8_no_mandatory_field_of_ours_is_ever_empty(api: Stub):
    """What a client would have to report as an error, we do not send."""
    message = await call(api, "FetchX509SVID")
    assert all(s.spiffe_id and s.x509_svid and s.x509_svid_key and s.bundle for s in message.svids)
    assert all((await call(api, "FetchX509Bundles")).bundles.values())
    assert all((await call(api, "FetchJWTBundles")).bundles.values())
    assert all(s.spiffe_id and s.svid for s in (await call(api, "FetchJWTSVID")).svids)


async def test_WL_9_a_token_of_a_domain_without_a_bundle_is_not_trusted(ours: Town, api: Stub):
    stranger = TestCa("stranger.test", now=ours.clock.now())
    request = workload_api.ValidateJWTSVIDRequest(audience="them", svid=stranger.jwt_svid())
    assert (await refusal(api.ValidateJWTSVID(request, metadata=HEADER)))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_WL_10_an_x509_svid_is_der_the_leaf_first_with_its_pkcs8_key_and_its_bundle(ours: Town, api: Stub):
    message = await call(api, "FetchX509SVID")
    assert message.svids
    for sent in message.svids:
        chain = parse_chain(sent.x509_svid)
        key = load_der_private_key(sent.x509_svid_key, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.public_key() == chain[0].public_key()
        bundle = TrustBundle.from_x509_der(TD, sent.bundle)
        assert bundle.x509_authorities == ours.ca.bundle.x509_authorities
        assert str(verify_x509(chain, BundleMap.of(bundle), ours.clock.now()).id) == sent.spiffe_id
        X509Svid.from_der(sent.x509_svid, sent.x509_svid_key, sent.hint)


async def test_WL_11_hints_are_unique_and_the_oldest_entry_has_it(ours: Town, api: Stub):
    ours.ca.add(entry("newer", created_at=9, hint="main"))
    await ours.until(lambda account: len(account["identities"]) == 3)
    message = await call(api, "FetchX509SVID")
    assert [(s.spiffe_id, s.hint) for s in message.svids] == [
        ("spiffe://example.org/orders", "main"),
        ("spiffe://example.org/inventory", ""),
    ]
    tokens = await call(api, "FetchJWTSVID")
    assert [s.hint for s in tokens.svids] == ["main", ""]


@pytest.mark.parametrize("rpc", [*STREAMS, "FetchJWTSVID"])
async def test_WL_12_who_is_not_entitled_is_denied(rpc: str):
    async with town(entry("others", NOBODY)) as here, here.client() as stub:
        assert await refusal(call(stub, rpc)) == (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")


async def test_WL_12_who_is_not_entitled_has_our_own_bundles_if_so_configured_and_nothing_else():
    async with town(entry("others", NOBODY), allow_unauthenticated_verifiers=True) as here, here.client() as stub:
        for rpc in ("FetchX509Bundles", "FetchJWTBundles"):
            assert list((await call(stub, rpc)).bundles) == ["spiffe://example.org"]
        for rpc in ("FetchX509SVID", "FetchJWTSVID"):
            assert (await refusal(call(stub, rpc)))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_WL_12_when_entitlement_ends_every_stream_ends_with_it(ours: Town, api: Stub):
    streams = [getattr(api, rpc)(request, metadata=HEADER) for rpc, request in STREAMS.items()]
    for stream in streams:
        await read(stream)
    ours.ca.entries.clear()
    for stream in streams:
        assert await refusal(stream.read()) == (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")


async def test_WL_13_bundles_hold_our_own_and_the_federated_domains_by_their_ids(ours: Town, api: Stub):
    partner = TestCa(PARTNER, now=ours.clock.now())
    for rpc in ("FetchX509Bundles", "FetchJWTBundles"):
        assert list((await call(api, rpc)).bundles) == ["spiffe://example.org"]
    ours.ca.orders.federated["partner.test"] = partner.bundle()
    ours.ca.revise("orders", federates_with=(PARTNER,))
    await ours.until(lambda account: len(account["bundles"]) == 2)
    for rpc in ("FetchX509Bundles", "FetchJWTBundles"):
        assert set((await call(api, rpc)).bundles) == {"spiffe://example.org", "spiffe://partner.test"}
    der = (await call(api, "FetchX509Bundles")).bundles["spiffe://partner.test"]
    assert TrustBundle.from_x509_der(PARTNER, der).x509_authorities == partner.bundle().x509_authorities


async def test_WL_14_jwt_svids_are_for_all_identities_or_for_the_one_named(ours: Town, api: Stub):
    async def fetch(spiffe_id: str = "") -> Any:
        request = workload_api.JWTSVIDRequest(audience=["a", "b"], spiffe_id=spiffe_id)
        return await api.FetchJWTSVID(request, metadata=HEADER)

    everything = await fetch()
    assert ids(everything) == ["spiffe://example.org/orders", "spiffe://example.org/inventory"]
    for sent in everything.svids:
        svid = verify_jwt(sent.svid, BundleMap.of(ours.ca.bundle), "b", ours.clock.now())
        assert (str(svid.id), svid.audience) == (sent.spiffe_id, ("a", "b"))
    assert ids(await fetch("spiffe://example.org/inventory")) == ["spiffe://example.org/inventory"]
    audited = [(event["pid"], event["spiffe_ids"]) for event in ours.audit.of("jwt_svid.serve")]
    assert audited == [(os.getpid(), ids(everything)), (os.getpid(), ["spiffe://example.org/inventory"])]
    code, text = await refusal(fetch("spiffe://example.org/somebody-else"))
    assert (code, text) == (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
    assert (await refusal(fetch("spiffe://EXAMPLE.org/x")))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_WL_15_jwt_bundles_hold_jwt_keys_and_no_others(ours: Town, api: Stub):
    document = json.loads((await call(api, "FetchJWTBundles")).bundles["spiffe://example.org"])
    assert [key["kid"] for key in document["keys"]] == [k.key_id for k in ours.ca.bundle.jwt_authorities]
    assert all("x5c" not in key and key.get("use") != "x509-svid" for key in document["keys"])
    assert not any(name.startswith("spiffe_") for name in document)


async def test_WL_16_validation_gives_id_and_claims_and_refuses_what_is_not_true(ours: Town, api: Stub):
    async def validate(token: str, audience: str = "them") -> Any:
        request = workload_api.ValidateJWTSVIDRequest(audience=audience, svid=token)
        return await api.ValidateJWTSVID(request, metadata=HEADER)

    ours.ca.pki.now = ours.clock.now()
    ours_token = ours.ca.pki.jwt_svid("/orders", "them", colour="blue", deep={"a": [1, None, "x"]})
    answer = await validate(ours_token)
    assert answer.spiffe_id == "spiffe://example.org/orders"
    assert list(answer.claims["aud"]) == ["them"], "a list, whatever the token has"
    assert answer.claims["colour"] == "blue"
    assert answer.claims["deep"]["a"][2] == "x"
    for wrong in (
        ours.ca.pki.jwt_svid("/orders", "somebody-else"),
        ours.ca.pki.jwt_svid("/orders", "them", timedelta(seconds=-1)),
        TestCa("example.org", now=ours.clock.now()).jwt_svid("/orders", "them"),
        ours_token[:-4] + "AAAA",
        "not.a.token",
    ):
        assert (await refusal(validate(wrong)))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_WL_16_who_has_no_identity_may_ask_whether_a_token_is_true():
    """The answer holds what the token holds."""
    async with town(entry("others", NOBODY)) as here, here.client() as stub:
        here.ca.pki.now = here.clock.now()
        token = here.ca.pki.jwt_svid("/others", "them")
        request = workload_api.ValidateJWTSVIDRequest(audience="them", svid=token)
        assert (await stub.ValidateJWTSVID(request, metadata=HEADER)).spiffe_id == "spiffe://example.org/others"


async def test_WL_16_of_a_foreign_token_only_registered_claims_are_passed_on(ours: Town, api: Stub):
    partner = TestCa(PARTNER, now=ours.clock.now())
    ours.ca.orders.federated["partner.test"] = partner.bundle()
    ours.ca.revise("orders", federates_with=(PARTNER,))
    await ours.until(lambda account: len(account["bundles"]) == 2)
    token = partner.jwt_svid("/theirs", "them", jti="7", groups=["admin"])
    request = workload_api.ValidateJWTSVIDRequest(audience="them", svid=token)
    answer = await api.ValidateJWTSVID(request, metadata=HEADER)
    assert answer.spiffe_id == "spiffe://partner.test/theirs"
    assert set(answer.claims) == {"sub", "aud", "exp", "iat", "jti"}


async def test_WL_17_the_default_identity_is_the_first_and_stays_it(ours: Town, api: Stub):
    assert ids(await call(api, "FetchX509SVID"))[0] == "spiffe://example.org/orders"
    ours.ca.add(entry("a-newcomer", created_at=3))
    ours.ca.revise("orders")
    await ours.until(
        lambda account: len(account["identities"]) == 3 and all(i["serial"] for i in account["identities"])
    )
    for _ in range(3):
        message = await call(api, "FetchX509SVID")
        assert ids(message) == [f"spiffe://example.org/{name}" for name in ("orders", "inventory", "a-newcomer")]


@pytest.mark.parametrize("rpc", ["FetchWITSVID", "FetchWITBundles"])
async def test_WL_18_WL_19_the_wit_profile_is_not_supported_and_says_so(api: Stub, rpc: str):
    request = {"FetchWITSVID": workload_api.WITSVIDRequest(), "FetchWITBundles": workload_api.WITBundlesRequest()}
    code, text = await refusal(getattr(api, rpc)(request[rpc], metadata=HEADER).read())
    assert (code, "WIT" in text) == (grpc.StatusCode.UNIMPLEMENTED, True)


# The Workload Endpoint


async def test_WE_1_the_endpoint_is_a_unix_socket_that_every_user_may_open(ours: Town):
    assert ours.said["spiffe_endpoint_socket"] == f"unix:{ours.workload_socket}"
    assert ours.workload_socket.is_socket()
    assert ours.workload_socket.stat().st_mode & 0o777 == 0o777


async def test_WE_2_nothing_of_the_agent_listens_beyond_this_machine():
    async with town(start=False) as here:
        before = _listening()
        await here.start_agent()
        assert _listening() == before


async def test_WE_3_a_call_without_the_security_header_is_refused(api: Stub):
    """Exactly one, and exactly this value."""
    name = "workload.spiffe.io"
    wrong = [(), ((name, "false"),), ((name, "True"),), ((name, ""),), ((name, "true"),) * 2, ((f"x-{name}", "true"),)]
    for metadata in wrong:
        for rpc in (*STREAMS, *UNARY):
            code, text = await refusal(call(api, rpc, metadata))
            assert (code, text) == (grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")


async def test_WE_3_the_header_is_asked_for_by_the_workload_api_alone(ours: Town):
    """Other services on the socket do without: here gRPC's health check."""
    async with grpc.aio.insecure_channel(ours.endpoint) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"") == b"\x08\x01", "SERVING"


async def test_WE_4_neither_tls_nor_a_secret_of_the_workload_is_asked_for(ours: Town, api: Stub):
    assert ids(await call(api, "FetchX509SVID")), "over plain HTTP/2, by who the kernel says we are"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.open_unix_connection(str(ours.workload_socket), ssl=context, server_hostname="x")


async def test_WE_7_other_services_have_names_of_their_own_and_there_is_no_reflection(ours: Town):
    async with grpc.aio.insecure_channel(ours.endpoint) as channel:
        reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        stream = reflect()
        await stream.done_writing()
        assert (await refusal(stream.read()))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_WE_8_each_condition_has_the_code_of_the_table(api: Stub):
    """Wrong request, not entitled, not yet, not offered: the four codes by which a client decides about retrying."""
    assert (await refusal(call(api, "FetchX509SVID", ())))[0] is grpc.StatusCode.INVALID_ARGUMENT
    wit = api.FetchWITSVID(workload_api.WITSVIDRequest(), metadata=HEADER)
    assert (await refusal(wit.read()))[0] is grpc.StatusCode.UNIMPLEMENTED
    async with town(start=False) as here:
        here.ca.orders.away = True
        await here.start_agent()
        async with here.client() as stub:
            assert (await refusal(call(stub, "FetchX509SVID")))[0] is grpc.StatusCode.UNAVAILABLE
        here.ca.orders.away = False
        await here.until(lambda account: account["ready"])
        async with here.client() as stub:
            assert (await refusal(call(stub, "FetchX509SVID")))[0] is grpc.StatusCode.PERMISSION_DENIED


def _listening() -> set[tuple[str, int]]:
    return {
        (c.laddr.ip, c.laddr.port)
        for c in psutil.Process().net_connections("inet")
        if c.status == psutil.CONN_LISTEN or not c.raddr
    }
