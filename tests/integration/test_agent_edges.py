"""The agent where it matters: impostors, outages, restarts, slow clients and crowds (hazards 13 and 22 to 25)."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from livery.identity import Selector, parse_chain
from livery.runtime.files import StateLocked
from livery.wire import workload_api
from livery_agent.errors import NodeLost
from livery_agent.main import serve
from tests.fakes import http2
from tests.fakes.ca import REASON
from tests.fakes.node_files import Files
from tests.integration.agents import HEADER, PATIENCE, Town, entry, town
from tests.integration.handover import Handover, handover

X509 = workload_api.X509SVIDRequest()


async def read(call: Any, timeout: float = PATIENCE) -> Any:
    message = await asyncio.wait_for(call.read(), timeout)
    assert message is not grpc.aio.EOF
    return message


async def read_up_to(call: Any, message: Any, serial: str) -> None:
    """Read on from this message to the SVID that is held now: there may have been a renewal since."""
    while f"{parse_chain(message.svids[0].x509_svid)[0].serial_number:x}" != serial:
        message = await read(call)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(call.read(), PATIENCE)
    return refused.value.code()


# Hazard 13: the answer is for who asked, or for nobody


@pytest.fixture
async def holding() -> AsyncIterator[Town]:
    """An agent whose CA takes its time with signing: every stream is matched, and held."""
    async with town(entry("orders"), start=False) as here:
        here.ca.orders.slow.add("BatchNewX509SVID")
        here.ca.orders.held.clear()
        await here.launch_agent()
        await here.until(lambda account: account["ready"])
        yield here
        here.ca.orders.held.set()


async def open_streams(here: Town, count: int = 1) -> None:
    await here.until(lambda account: account["streams"] == count)


async def test_hazard_13_a_process_that_stays_what_it_is_gets_its_svid(holding: Town):
    """The counter-test of the next ones: the same process, the same hand-made stream."""
    async with handover(holding.workload_socket, holding.directory) as asker:
        await open_streams(holding)
        holding.ca.orders.held.set()
        assert b"spiffe://example.org/orders" in await asker.first_data()
        assert asker.popen.pid in {event["pid"] for event in holding.audit.of("x509_svid.serve")}


async def impostor(here: Town, change: Any) -> Handover:
    async with handover(here.workload_socket, here.directory) as asker:
        await open_streams(here)
        await change(asker)
        here.ca.orders.held.set()
        assert b"spiffe" not in await asker.answer()
        assert here.audit.of("x509_svid.serve") == []
        await open_streams(here, 0)
        return asker


async def test_hazard_13_a_process_that_became_another_program_before_the_first_reply_gets_nothing(holding: Town):
    await impostor(holding, Handover.become_another_program)


async def test_hazard_13_a_process_that_ended_before_the_first_reply_gets_nothing(holding: Town):
    """Its number is free for somebody trusted from now on; whoever holds the connection inherits nothing."""
    await impostor(holding, Handover.end)


async def test_hazard_13_an_open_stream_gives_no_update_to_what_its_process_became():
    async with town(entry("orders")) as here, handover(here.workload_socket, here.directory) as asker:
        assert b"spiffe://example.org/orders" in await asker.first_data()
        await asker.become_another_program()
        served = len(here.audit.of("x509_svid.serve"))
        here.ca.revise("orders")
        await open_streams(here, 0)
        assert len(here.audit.of("x509_svid.serve")) == served


async def test_hazard_13_a_process_that_became_another_program_gets_no_token_it_asked_for_before():
    async with town(entry("orders")) as here:
        for become in (False, True):
            message = workload_api.JWTSVIDRequest(audience=[f"a{become}"]).SerializeToString()
            here.ca.orders.slow.add("NewJWTSVID")
            here.ca.orders.held.clear()
            here.audit.events.clear()
            asked = here.ca.calls["NewJWTSVID"]
            async with handover(here.workload_socket, here.directory, "FetchJWTSVID", message) as asker:
                async with asyncio.timeout(PATIENCE):
                    while here.ca.calls["NewJWTSVID"] == asked:
                        await asyncio.sleep(0.01)
                if become:
                    await asker.become_another_program()
                here.ca.orders.held.set()
                answer = await asker.answer()
            assert (b"spiffe://example.org/orders" in answer) is not become
            assert len(here.audit.of("jwt_svid.serve")) == (0 if become else 1)


# Hazard 25: the edges of the Workload API


async def test_hazard_25_matched_but_not_yet_signed_is_held_and_then_answered(holding: Town):
    async with holding.client() as stub:
        call = stub.FetchX509SVID(X509, metadata=HEADER)
        reading = asyncio.ensure_future(call.read())
        await open_streams(holding)
        done, _ = await asyncio.wait({reading}, timeout=0.3)
        assert not done
        holding.ca.orders.held.set()
        assert (await asyncio.wait_for(reading, PATIENCE)).svids[0].spiffe_id == "spiffe://example.org/orders"
        call.cancel()


async def test_hazard_25_not_yet_synchronised_is_unavailable_and_never_a_denial():
    async with town(entry("orders"), start=False) as here:
        await here.close_ca()
        await here.start_agent()
        async with here.client() as stub:
            assert await code_of(stub.FetchX509SVID(X509, metadata=HEADER)) is grpc.StatusCode.UNAVAILABLE
            request = workload_api.JWTSVIDRequest(audience=["x"])
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.FetchJWTSVID(request, metadata=HEADER)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await here.inspect("/ready")).status_code == 503
        assert (await here.inspect("/live")).status_code == 200


async def test_hazard_25_with_the_ca_away_streams_stay_open_and_silent_and_expired_is_unavailable_to_new_ones():
    async with town(entry("orders"), start=False) as here, here.client() as stub:
        here.ca.orders.svid_ttl = timedelta(seconds=4)
        await here.start_agent()
        await here.until(lambda account: account["identities"] and account["identities"][0]["serial"])
        call = stub.FetchX509SVID(X509, metadata=HEADER)
        first = await read(call)
        await here.close_ca()
        account = await here.until(lambda account: account["identities"][0]["state"] == "expired")
        await read_up_to(call, first, account["identities"][0]["serial"])
        reading = asyncio.ensure_future(call.read())
        assert await code_of(stub.FetchX509SVID(X509, metadata=HEADER)) is grpc.StatusCode.UNAVAILABLE
        assert not reading.done(), "the open stream neither speaks nor ends"
        here.ca.orders.svid_ttl = timedelta(hours=1)
        await here.open_ca(here.port)
        assert (await asyncio.wait_for(reading, PATIENCE)).svids
        call.cancel()


async def test_hazard_25_an_open_stream_whose_svid_ended_stays_silent_while_other_things_change():
    """Signing fails and everything else works: the client keeps what it has, and is not sent away."""
    async with town(entry("orders"), start=False) as here, here.client() as stub:
        here.ca.orders.svid_ttl = timedelta(seconds=4)
        await here.start_agent()
        call = stub.FetchX509SVID(X509, metadata=HEADER)
        first = await read(call)
        here.ca.orders.lose_reply.add("BatchNewX509SVID")
        account = await here.until(lambda account: account["identities"][0]["state"] == "expired")
        await read_up_to(call, first, account["identities"][0]["serial"])
        reading = asyncio.ensure_future(call.read())
        here.ca.add(entry("others", Selector.parse("unix:uid:987654")))
        await here.until(lambda account: len(account["identities"]) == 2)
        here.ca.orders.svid_ttl = timedelta(hours=1)
        here.ca.orders.lose_reply.clear()
        assert (await asyncio.wait_for(reading, PATIENCE)).svids
        call.cancel()


async def test_hazard_25_a_rotation_reaches_an_open_stream_and_no_workload_is_ever_without():
    """Four SVIDs, each renewed at half of its life: each message comes well before the last one's end."""
    async with town(entry("orders"), start=False) as here, here.client() as stub:
        life = here.ca.orders.svid_ttl = timedelta(seconds=5)
        await here.start_agent()
        call = stub.FetchX509SVID(X509, metadata=HEADER)
        serials = set()
        for _ in range(4):
            message = await read(call, timeout=life.total_seconds())
            leaf = parse_chain(message.svids[0].x509_svid)[0]
            assert leaf.not_valid_after_utc > here.clock.now()
            serials.add(leaf.serial_number)
        assert len(serials) == 4
        call.cancel()


# Restarts and the end


async def test_kill_and_restart_a_workload_reconnects_and_has_an_svid_again():
    async with town(entry("orders")) as here:
        async with here.client() as stub:
            call = stub.FetchX509SVID(X509, metadata=HEADER)
            await read(call)
            await here.stop_agent()
            assert await code_of(call) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            await here.start_agent()
            await here.until(lambda account: all(i["serial"] for i in account["identities"]) and account["ready"])
            await read(stub.FetchX509SVID(X509, metadata=HEADER))
        assert here.ca.calls["AttestAgent"] == 1, "the node went on with the identity on its disk"


async def test_a_second_agent_on_the_same_state_is_refused():
    async with town(entry("orders")) as here:
        with pytest.raises(StateLocked):
            await serve(here.config, here.clock, here.audit, lambda _: None)
        assert (await here.inspect()).json()["ready"]


async def test_a_node_the_ca_bans_stops_serving_and_ends_with_the_reason():
    async with town(entry("orders")) as here:
        here.ca.orders.refuse = REASON.AGENT_BANNED
        assert here.agent is not None
        with pytest.raises(NodeLost, match="banned"):
            await asyncio.wait_for(here.agent, PATIENCE)
        assert not here.workload_socket.exists()


async def test_hazard_23_a_node_renews_itself_again_and_again_and_no_call_is_lost():
    """Four renewals, each because the CA tainted the authority, under a stream of requests that each need the CA."""
    async with town(entry("orders"), jwt_svid_cache_size=1) as here, here.client() as stub:
        failures, number = [], 0

        async def ask() -> None:
            nonlocal number
            while True:
                number += 1
                request = workload_api.JWTSVIDRequest(audience=[f"a{number}"])
                try:
                    await stub.FetchJWTSVID(request, metadata=HEADER)
                except grpc.aio.AioRpcError as error:
                    failures.append(error)

        asking = asyncio.create_task(ask())
        for _ in range(4):
            before = (await here.inspect()).json()["node"]["serial"]
            here.ca.rotate(taint=True)
            await here.until(lambda account, before=before: account["node"]["serial"] != before)
        asking.cancel()
        assert failures == []
        assert number > 10
        assert here.ca.calls["RenewAgent"] == 4


async def test_a_ca_that_dropped_our_authority_is_attested_to_again(tmp_path: Any):
    """Over TLS there is no status to say so: the handshake fails, and the node attests anew."""
    files = Files(tmp_path)
    pop = {
        "certificate_path": files.certificate,
        "private_key_path": files.private,
        "intermediates_path": files.intermediates,
    }
    async with town(entry("orders"), join_token=None, x509pop=pop) as here:
        node = (await here.inspect()).json()["node"]["serial"]
        old = here.ca.authorities
        here.ca.rotate()
        await here.until(lambda account: account["acknowledged_sequence"] == 2)
        await here.close_ca()
        here.ca.authorities = tuple(a for a in here.ca.authorities if a not in old)
        await here.open_ca(here.port)
        account = await here.until(lambda account: account["node"]["serial"] != node and not account["failing"])
        assert account["ready"]


async def test_a_ca_that_changed_its_authority_while_the_agent_was_stopped_is_known_by_the_file_once_told_so():
    """A node by token cannot attest again: without `bundle.json` it knows the CA by the operator's file, as itself."""
    async with town(entry("orders")) as here:
        node = (await here.inspect()).json()["node"]["serial"]
        await here.stop_agent()
        await here.close_ca()
        here.ca.rotate()
        await here.open_ca(here.port)
        await here.start_agent()
        account = (await here.inspect()).json()
        assert not account["ready"]
        assert "its certificate is not accepted" in account["failing"][0]["error"]
        await here.stop_agent()
        (here.directory / "state" / "bundle.json").unlink()
        await here.start_agent()
        account = await here.until(lambda account: account["ready"])
        assert account["node"]["serial"] == node
        assert here.ca.calls["AttestAgent"] == 1


async def test_an_insecure_bootstrap_trusts_the_first_answer_and_then_only_that():
    async with town(entry("orders"), start=False, insecure_bootstrap=True, trust_bundle_path=None) as here:
        await here.start_agent()
        await here.until(lambda account: account["ready"])
        account = (await here.inspect()).json()
        assert len(account["bundles"][0]["x509_authorities"]) == 1


async def test_a_ca_with_another_id_is_not_attested_to():
    async with town(entry("orders"), start=False) as here:
        await here.close_ca()
        here.ca_path = "/impostor"
        await here.open_ca(here.port)
        await here.start_agent()
        account = (await here.inspect()).json()
        assert not account["ready"]
        assert "not the expected peer" in account["failing"][0]["error"]


# Slow clients and crowds


async def test_a_page_of_long_entries_arrives_whole():
    """A page may hold 500 entries, and an entry any number of selectors: more than gRPC takes unless it is told to."""
    long = [Selector("unix", f"path:/{number}/{'x' * 4000}") for number in range(10)]
    async with town(*(entry(f"e{number}", *long) for number in range(120)), start=False) as here:
        await here.start_agent()
        assert (await here.inspect("/ready")).json() == {"ready": True}


async def test_a_client_that_does_not_read_loses_its_stream_and_its_neighbours_notice_nothing():
    async with town(entry("orders"), limits={"write_timeout": timedelta(seconds=2)}) as here, here.client() as stub:
        good = stub.FetchX509SVID(X509, metadata=HEADER)
        await read(good)
        reader, writer = await asyncio.open_unix_connection(str(here.workload_socket))
        # A window of 100 bytes: the first message does not fit, and nobody will open it.
        writer.write(http2.grpc_call("/SpiffeWorkloadAPI/FetchX509SVID", {"workload.spiffe.io": "true"}, window=100))
        await open_streams(here, 2)
        here.ca.revise("orders")
        await read(good)
        await open_streams(here, 1)
        here.ca.revise("orders")
        await read(good)
        good.cancel()
        writer.close()
        del reader


async def test_a_thousand_streams_are_served_and_one_more_is_refused():
    """Each gets its SVID and its rotation; memory grows by tens of kilobytes a stream, both ends counted."""
    limits = {"max_streams": 1000, "max_streams_per_user": 1000}
    async with town(entry("orders"), limits=limits) as here, AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(here.client()) for _ in range(20)]
        await read(warm := stubs[0].FetchX509SVID(X509, metadata=HEADER))
        warm.cancel()
        await open_streams(here, 0)
        gc.collect()
        before = psutil.Process().memory_info().rss
        calls = [stub.FetchX509SVID(X509, metadata=HEADER) for stub in stubs for _ in range(50)]
        await asyncio.gather(*(read(call, 60) for call in calls))
        gc.collect()
        grown = psutil.Process().memory_info().rss - before
        assert (await here.inspect()).json()["streams"] == 1000
        assert await code_of(stubs[0].FetchX509SVID(X509, metadata=HEADER)) is grpc.StatusCode.UNAVAILABLE
        assert grown / 1000 < 200_000, f"{grown / 1000:.0f} bytes a stream"
        here.ca.revise("orders")
        await asyncio.gather(*(read(call, 60) for call in calls))
        for call in calls:
            call.cancel()


async def test_one_user_cannot_take_the_places_of_all():
    async with town(entry("orders"), limits={"max_streams_per_user": 2}) as here, here.client() as stub:
        calls = [stub.FetchX509SVID(X509, metadata=HEADER) for _ in range(2)]
        await asyncio.gather(*(read(call) for call in calls))
        assert await code_of(stub.FetchX509SVID(X509, metadata=HEADER)) is grpc.StatusCode.UNAVAILABLE
        calls[0].cancel()
        await open_streams(here, 1)
        await read(stub.FetchX509SVID(X509, metadata=HEADER))


async def test_requests_that_wait_for_the_ca_are_bounded_and_one_more_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("livery_agent.main.MAX_REQUESTS_PER_USER", 2)
    async with town(entry("orders")) as here, here.client() as stub:
        here.ca.orders.slow.add("NewJWTSVID")
        here.ca.orders.held.clear()

        async def fetch(audience: str) -> Any:
            return await stub.FetchJWTSVID(workload_api.JWTSVIDRequest(audience=[audience]), metadata=HEADER)

        waiting = [asyncio.create_task(fetch(audience)) for audience in "ab"]
        async with asyncio.timeout(PATIENCE):
            while here.ca.calls["NewJWTSVID"] < 2:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError, match="too many requests") as refused:
            await fetch("c")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        here.ca.orders.held.set()
        assert all(answer.svids for answer in await asyncio.gather(*waiting))
        assert (await fetch("c")).svids


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_two_users_of_one_machine_get_their_own_identities_and_no_others():
    nobody = Selector.parse("unix:uid:65534")
    async with town(entry("ours"), entry("theirs", nobody)) as here, here.client() as stub:
        mine = await read(stub.FetchX509SVID(X509, metadata=HEADER))
        assert [s.spiffe_id for s in mine.svids] == ["spiffe://example.org/ours"]
        here.directory.chmod(0o755)
        program = (
            "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(bytes.fromhex(sys.argv[2]));"
            "data = b''\n"
            "while b'example.org/' not in data: data += s.recv(65536)\n"
            "print('theirs' if b'example.org/theirs' in data else 'wrong')"
        )
        request = http2.grpc_call("/SpiffeWorkloadAPI/FetchX509SVID", {"workload.spiffe.io": "true"})
        child = await asyncio.create_subprocess_exec(
            "/usr/bin/python3", "-c", program, str(here.workload_socket), request.hex(), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(child.communicate(), PATIENCE)
        assert said == b"theirs\n"


# Good neighbourhood


async def test_garbage_on_the_socket_disturbs_nobody():
    async with town(entry("orders")) as here, here.client() as stub:
        for garbage in (b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", os.urandom(10_000), http2.PREFACE):
            _, writer = await asyncio.open_unix_connection(str(here.workload_socket))
            writer.write(garbage)
            await writer.drain()
            writer.close()
        huge = workload_api.ValidateJWTSVIDRequest(audience="x", svid="x" * 10_000_000)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ValidateJWTSVID(huge, metadata=HEADER)
        async with here.client() as other:
            await read(other.FetchX509SVID(X509, metadata=HEADER))


async def test_the_account_of_the_agent_holds_no_secret_and_changes_nothing():
    async with town(entry("orders")) as here:
        shown = (await here.inspect()).text
        assert "PRIVATE" not in shown
        assert "key_der" not in shown
        assert (await here.inspect("/nothing")).status_code == 404
        assert "livery_agent_identities" in (await here.inspect("/metrics")).text
