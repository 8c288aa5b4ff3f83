"""One table from kinds of errors to the codes of gRPC and HTTP."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.status_pb2 import Status

from livery.errors import Kind, LiveryError
from livery.runtime.problems import grpc_code, http_status, refusal_of, unexpected


class Banned(LiveryError):
    code = "banned"
    kind = Kind.DENIED
    grpc_details = (StringValue(value="AGENT_BANNED"),)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_grpc_code_and_an_http_status(kind):
    assert grpc_code(kind) is not grpc.StatusCode.OK
    assert http_status(kind) >= 400


def test_no_two_kinds_share_a_grpc_code():
    assert len({grpc_code(kind) for kind in Kind}) == len(Kind)


def test_a_refusal_carries_code_text_and_details():
    refusal = refusal_of(Banned("authorization denied", why="the agent is banned"))
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    assert refusal.text == "authorization denied: the agent is banned"
    ((name, value),) = refusal.trailers()
    status = Status.FromString(value)
    assert (name, status.code, status.message) == ("grpc-status-details-bin", 7, refusal.text)
    assert status.details[0].type_url == "type.googleapis.com/google.protobuf.StringValue"
    assert StringValue.FromString(status.details[0].value).value == "AGENT_BANNED"


def test_an_error_without_details_has_no_trailer():
    assert refusal_of(LiveryError("no")).trailers() == ()


def test_an_unexpected_error_tells_only_its_class_and_the_request():
    assert unexpected("ab12").text == "internal error (request ab12)"
