"""The Workload API's messages live beside another SPIFFE library's in one process, and answer like any other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, struct_pb2

from livery.wire import workload_api

OURS = "from livery.wire import workload_api as ours"
THEIRS = "import spiffe; from spiffe._proto import workload_pb2 as theirs"
EXCHANGE = """
there = theirs.X509SVIDResponse(svids=[theirs.X509SVID(spiffe_id="spiffe://td/a", x509_svid=b"c", hint="h")])
there.federated_bundles["spiffe://other"] = b"der"
here = ours.X509SVIDResponse.FromString(there.SerializeToString())
assert here.svids[0].spiffe_id == "spiffe://td/a" and here.svids[0].hint == "h"
assert dict(here.federated_bundles) == {"spiffe://other": b"der"}
assert theirs.X509SVIDResponse.FromString(here.SerializeToString()) == there
answer = ours.ValidateJWTSVIDResponse(spiffe_id="spiffe://td/a", claims={"aud": ["x"], "exp": 7})
assert theirs.ValidateJWTSVIDResponse.FromString(answer.SerializeToString()).claims["aud"][0] == "x"
print("both")
"""


@pytest.mark.parametrize("imports", [(OURS, THEIRS), (THEIRS, OURS)], ids=["ours first", "theirs first"])
def test_both_libraries_load_in_either_order_and_read_each_others_bytes(imports: tuple[str, str]) -> None:
    program = "\n".join((*imports, EXCHANGE))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "both"), done.stderr


def test_the_default_pool_does_not_learn_the_workload_apis_names() -> None:
    """In a process of its own: another test may have loaded the other library here."""
    look_up = "descriptor_pool.Default().FindMessageTypeByName('X509SVID')"
    program = f"{OURS}\nfrom google.protobuf import descriptor_pool\n{look_up}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "KeyError" in done.stderr
    assert workload_api.X509SVID.DESCRIPTOR.file.pool is not descriptor_pool.Default()


def test_a_struct_field_keeps_its_dictionary_helpers() -> None:
    answer = workload_api.ValidateJWTSVIDResponse()
    answer.claims.update({"sub": "spiffe://td/a", "aud": ["x", "y"], "n": {"deep": True}})
    assert answer.claims["sub"] == "spiffe://td/a"
    assert answer.claims.get_or_create_list("aud")[1] == "y"
    assert answer.claims.get_or_create_struct("n")["deep"] is True
    assert json_format.MessageToDict(answer.claims) == {"sub": "spiffe://td/a", "aud": ["x", "y"], "n": {"deep": True}}


def test_a_struct_field_takes_a_dictionary_a_foreign_struct_and_foreign_bytes() -> None:
    foreign = struct_pb2.Struct()
    foreign.update({"exp": 7, "aud": ["x"]})
    by_bytes = workload_api.ValidateJWTSVIDResponse()
    by_bytes.claims.MergeFromString(foreign.SerializeToString())
    by_foreign = workload_api.ValidateJWTSVIDResponse(claims=foreign)
    by_dictionary = workload_api.ValidateJWTSVIDResponse(claims={"exp": 7, "aud": ["x"]})  # type: ignore[arg-type]  # protobuf takes a dict, its stubs do not say so
    assert by_bytes == by_foreign == by_dictionary


def test_copying_a_foreign_struct_into_a_field_is_refused() -> None:
    """The one trap of a private pool, kept here so that its note in private_pool stays true."""
    with pytest.raises(TypeError):
        workload_api.ValidateJWTSVIDResponse().claims.CopyFrom(struct_pb2.Struct())


class OnlyBundles(workload_api.SpiffeWorkloadAPIServicer):
    """A servicer that leaves every method but one out."""

    async def FetchX509Bundles(
        self, request: workload_api.X509BundlesRequest, context: object
    ) -> AsyncIterator[workload_api.X509BundlesResponse]:
        yield workload_api.X509BundlesResponse(bundles={"spiffe://td": b"der"})


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[workload_api.SpiffeWorkloadAPIAsyncStub]:
    server = grpc.aio.server()
    workload_api.add_SpiffeWorkloadAPIServicer_to_server(OnlyBundles(), server)
    address = f"unix:{tmp_path / 's'}"
    server.add_insecure_port(address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield workload_api.SpiffeWorkloadAPIStub(channel)
    await server.stop(None)


async def test_a_method_left_out_of_a_servicer_answers_unimplemented_and_logs_no_crash(
    stub: workload_api.SpiffeWorkloadAPIAsyncStub, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await stub.FetchJWTSVID(workload_api.JWTSVIDRequest(audience=["x"]))
    with pytest.raises(grpc.aio.AioRpcError) as stream:
        await anext(aiter(stub.FetchWITSVID(workload_api.WITSVIDRequest())))
    for error, method in ((unary.value, "FetchJWTSVID"), (stream.value, "FetchWITSVID")):
        assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, f"method {method} not implemented")
    assert [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}] == []


async def test_messages_of_the_private_pool_travel_over_grpc(stub: workload_api.SpiffeWorkloadAPIAsyncStub) -> None:
    async with asyncio.timeout(10):
        first = await anext(aiter(stub.FetchX509Bundles(workload_api.X509BundlesRequest())))
    assert dict(first.bundles) == {"spiffe://td": b"der"}
