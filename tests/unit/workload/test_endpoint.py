"""The address of the Workload API, as SPIFFE Workload Endpoint 4 writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livery.errors import Kind
from livery.workload.endpoint import find_endpoint, grpc_target
from livery.workload.errors import InvalidEndpoint


def test_WE_5_what_was_given_wins_over_the_environment() -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": "unix:///b"}
    assert find_endpoint("unix:///a", environ) == "unix:///a"
    assert find_endpoint(None, environ) == "unix:///b"


def test_WE_5_without_either_the_error_names_the_variable() -> None:
    with pytest.raises(InvalidEndpoint, match="SPIFFE_ENDPOINT_SOCKET") as raised:
        find_endpoint(None, {})
    assert raised.value.kind is Kind.INVALID
    assert "unix:///" in raised.value.fix


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("unix:///run/agent.sock", "unix:/run/agent.sock"),
        ("unix:/run/agent.sock", "unix:/run/agent.sock"),
        ("unix:///a%20b", "unix:/a%20b"),
        ("tcp://127.0.0.1:8081", "ipv4:127.0.0.1:8081"),
        ("tcp://[::1]:8081", "ipv6:[::1]:8081"),
    ],
)
def test_WE_6_an_absolute_path_or_an_ip_address_with_a_port_is_an_endpoint(endpoint: str, target: str) -> None:
    assert grpc_target(endpoint) == target


WRONG = """unix:rel unix://host/p unix:///p?q unix:///p#f unix:// unix: unix:/ unix:///p/ unix:////p unix:///%zz
    tcp://127.0.0.1 tcp://127.0.0.1:0 tcp://127.0.0.1:65536 tcp://localhost:80 tcp://127.0.0.1:80/ tcp://::1:80
    tcp://[127.0.0.1]:80 tcp://u@127.0.0.1:80 tcp:127.0.0.1:80 http://127.0.0.1:80 /run/agent.sock UNIX:///p
    tcp://999.1.1.1:80 tcp://127.0.0.1:١"""


@pytest.mark.parametrize("endpoint", WRONG.split())
def test_WE_6_anything_else_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidEndpoint):
        grpc_target(endpoint)


@pytest.mark.parametrize("endpoint", ["unix:///p\n", "tcp://127.0.0.1:80\n", "unix:///a b", "unix:///é"])
def test_WE_6_white_space_and_what_is_not_ascii_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidEndpoint):
        grpc_target(endpoint)


@given(st.one_of(st.text(), st.text(alphabet="unixtcp:/.[]0129%?#@").map(lambda t: "unix:" + t)))
def test_any_text_is_an_endpoint_or_an_error_of_ours(text: str) -> None:
    try:
        grpc_target(text)
    except InvalidEndpoint as error:
        assert error.fix
