"""How a CA starts, says how it is, refuses to start, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from livery.errors import Kind, LiveryError
from livery.runtime.clock import SystemClock
from livery.runtime.metrics import Metrics
from livery.wire import debug_api, entry_api, logger_api, svid_api, types_api
from livery_ca.config import CaConfig
from livery_ca.engine import Surroundings
from livery_ca.main import serve
from livery_ca.upkeep import Upkeep
from tests.fakes.audit import RecordingAudit
from tests.fakes.node_agent import new_csr, new_key
from tests.integration.doors import now
from tests.integration.running_ca import OURS, HastyClock, MovableClock, an_entry, an_id, refusal, running_ca
from tests.pki import TestCa


async def failure(state: Path, *args: Any, **settings: Any) -> LiveryError:
    """Why a CA does not start."""
    with pytest.raises(LiveryError) as refused:
        async with running_ca(state, *args, **settings):
            pass
    return refused.value


async def test_it_says_where_it_is_and_is_there(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as ca, ca.joined() as agent:
        assert ca.address.startswith("127.0.0.1:")
        assert ca.socket == f"unix:{tmp_path / 'admin.sock'}"
        assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600
        assert agent.id.trust_domain == OURS


async def test_what_it_keeps_is_private(tmp_path: Path) -> None:
    async with running_ca(tmp_path):
        kept = [path for path in (tmp_path / "ca").rglob("*") if not path.is_socket()]
        assert kept
        open_to_others = [path for path in (tmp_path / "ca", *kept) if path.stat().st_mode & 0o077]
        assert open_to_others == []


async def test_when_it_has_stopped_nothing_listens_and_the_state_is_free(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as ca:
        host, _, port = ca.address.rpartition(":")
    with contextlib.closing(socket.socket()) as sock:
        assert sock.connect_ex((host, int(port))) != 0
    assert not (tmp_path / "admin.sock").exists()
    async with running_ca(tmp_path):
        pass


# Refusing to start


async def test_a_second_ca_on_the_same_state_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as first:
        error = await failure(tmp_path, admin_socket=tmp_path / "other.sock")
        assert error.kind is Kind.CONFLICT
        assert await first.token()


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    async with running_ca(tmp_path / "a") as first:
        port = int(first.address.rpartition(":")[2])
        error = await failure(tmp_path / "b", listen_port=port)
        assert error.kind is Kind.CONFLICT
        assert str(port) in str(error)
        assert error.fix


async def test_an_admin_socket_in_use_is_not_taken_over(tmp_path: Path) -> None:
    async with running_ca(tmp_path / "a") as first:
        error = await failure(tmp_path / "b", admin_socket=tmp_path / "a" / "admin.sock")
        assert error.kind is Kind.CONFLICT
        assert await first.token()


async def test_the_state_of_another_trust_domain_is_refused(tmp_path: Path) -> None:
    async with running_ca(tmp_path):
        pass
    error = await failure(tmp_path, trust_domain="other.org")
    assert error.code == "store_foreign"
    assert "example.org" in str(error)


async def test_keys_without_their_key_encryption_key_are_told_and_left_alone(tmp_path: Path) -> None:
    async with running_ca(tmp_path):
        pass
    kek = tmp_path / "ca" / "key-encryption.key"
    held = kek.read_bytes()
    kek.unlink()
    error = await failure(tmp_path)
    assert str(kek) in str(error)
    assert error.fix
    kek.write_bytes(held)
    kek.chmod(0o600)
    async with running_ca(tmp_path):
        pass


async def test_a_key_encryption_key_may_live_elsewhere(tmp_path: Path) -> None:
    async with running_ca(tmp_path, key_encryption_key=tmp_path / "apart" / "kek"):
        assert not (tmp_path / "ca" / "key-encryption.key").exists()
        assert (tmp_path / "apart" / "kek").exists()


async def test_a_database_that_is_none_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir(mode=0o700)
    (tmp_path / "ca" / "ca.sqlite").write_bytes(b"garbage" * 1000)
    error = await failure(tmp_path)
    assert error.code == "store_corrupt"
    assert (tmp_path / "ca" / "ca.sqlite").read_bytes() == b"garbage" * 1000


async def test_a_task_that_ends_by_an_error_ends_the_ca_with_that_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with a group of one, whose text says nothing of it."""

    async def broken(_: Upkeep) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(Upkeep, "run", broken)
    config = CaConfig(
        trust_domain="example.org", state_dir=tmp_path / "ca", listen_port=0, admin_socket=tmp_path / "admin.sock"
    )
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        await serve(config, Surroundings(SystemClock(), RecordingAudit(), Metrics()), lambda _: None)


@pytest.mark.parametrize("case", ["missing", "no certificate", "no authority"])
async def test_authorities_of_nodes_that_cannot_be_used_are_told_by_their_file(tmp_path: Path, case: str) -> None:
    path = tmp_path / "nodes.pem"
    leaf = TestCa("nodes.test", now=now()).issue("/x").leaf
    content = {"missing": None, "no certificate": b"hello", "no authority": leaf.public_bytes(Encoding.PEM)}[case]
    if content is not None:
        path.write_bytes(content)
    error = await failure(tmp_path, x509pop={"ca_bundle_paths": [path]})
    assert error.kind is Kind.INVALID
    assert str(path) in str(error)
    assert "x509pop.ca_bundle_paths" in error.fix


async def test_a_clock_set_back_an_hour_is_told_and_costs_nothing(tmp_path: Path) -> None:
    """What was issued before must not be issued behind: the CA waits for its clock, or for somebody to set it."""
    ahead = MovableClock()
    ahead.offset = timedelta(hours=1)
    async with running_ca(tmp_path, ahead) as ca:
        entry_count = len(await ca.create(an_entry("/p", "/w")))
    error = await failure(tmp_path)
    assert error.code == "clock_behind"
    assert error.fix
    async with running_ca(tmp_path, ahead) as ca:
        assert entry_count == 1
        assert (await ca.entries.ListEntries(entry_api.ListEntriesRequest())).entries[0].spiffe_id.path == "/w"


async def test_a_method_of_attestation_that_is_off_admits_nobody(tmp_path: Path) -> None:
    async with running_ca(tmp_path, join_token={"enabled": False}) as ca, ca.agent() as agent:
        error = await refusal(agent.join(await ca.token()))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_each_kind_of_svid_has_a_lifetime_of_its_own(tmp_path: Path) -> None:
    """Hazard 15: how long a node may be away is not how long a workload's certificate lives."""
    ttls = {"agent_svid_ttl": "7m", "default_x509_svid_ttl": "20m", "default_jwt_svid_ttl": "3m"}
    before = now()
    async with running_ca(tmp_path, **ttls) as ca, ca.joined() as agent:
        assert agent.svid is not None
        key, uri = new_key(), x509.UniformResourceIdentifier("spiffe://example.org/w")
        minted = await ca.svids.MintX509SVID(svid_api.MintX509SVIDRequest(csr=new_csr(key, uri)))
        token = await ca.svids.MintJWTSVID(svid_api.MintJWTSVIDRequest(id=an_id("/w"), audience=["a"]))
        ends = (agent.svid.not_after.timestamp(), minted.svid.expires_at, token.svid.expires_at)
    assert [round((end - before.timestamp()) / 60) for end in ends] == [7, 20, 3]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"trust_domain": "UPPER"}, "lower-case"),
        ({"admin_ids": ["nobody"]}, "spiffe://"),
        ({"admin_ids": ["spiffe://other.org/boss"]}, "of this trust domain"),
        ({"default_x509_svid_ttl": "2d"}, "longer than ca_ttl"),
        ({"default_x509_svid_ttl": "1s"}, r"timedelta\(seconds=10\)"),
        ({"ca_ttl": "59s"}, r"ca_ttl\n.*timedelta\(seconds=60\)"),
        ({"x509pop": {"ca_bundle_paths": []}}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        CaConfig(**{"trust_domain": "example.org", **settings})


async def test_lifetimes_that_will_be_cut_are_told_at_the_start(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with running_ca(tmp_path, ca_ttl="2h", default_x509_svid_ttl="10m", agent_svid_ttl="1h"):
            pass
    (told,) = [line for line in logs if "setting" in line]
    assert told["fix"] == "set agent_svid_ttl to 20m at most, or ca_ttl to 6h", "as the configuration writes it"


# Saying how it is


async def get(path: Path, target: str, method: str = "GET") -> tuple[int, str]:
    """One HTTP request over a unix socket."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def test_probes_tell_life_readiness_and_numbers(tmp_path: Path) -> None:
    probes = tmp_path / "probes.sock"
    async with running_ca(tmp_path, metrics_socket=probes):
        assert (await get(probes, "/live"))[0] == 200
        status, body = await get(probes, "/ready")
        assert (status, json.loads(body)) == (200, {"state": "ok", "troubles": {}})
        status, body = await get(probes, "/metrics")
        assert status == 200
        assert "livery_ca_certificates_total" in body
        assert (await get(probes, "/elsewhere"))[0] == 404
        assert (await get(probes, "/ready", "POST"))[0] == 405
    assert not probes.exists()


async def test_a_failing_ca_says_so_to_probes_of_both_kinds_and_recovers(tmp_path: Path) -> None:
    probes, keys = tmp_path / "probes.sock", tmp_path / "ca" / "keys"
    async with running_ca(tmp_path, HastyClock(), metrics_socket=probes) as ca:
        states = health_pb2.HealthCheckResponse
        watch = health_pb2_grpc.HealthStub(ca.admin).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == states.SERVING
        keys.rename(tmp_path / "away")
        assert (await watch.read()).status == states.NOT_SERVING
        status, body = await get(probes, "/ready")
        assert (status, json.loads(body)["state"]) == (503, "failing")
        assert str(keys) in json.loads(body)["troubles"]["keys"]
        assert (await get(probes, "/live"))[0] == 200
        (tmp_path / "away").rename(keys)
        assert (await watch.read()).status == states.SERVING
        watch.cancel()


async def test_the_debug_service_counts(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as ca, ca.joined():
        await ca.create(an_entry("/p", "/w"))
        info = await debug_api.DebugStub(ca.admin).GetInfo(debug_api.GetInfoRequest())
        assert (info.agents_count, info.entries_count, info.federated_bundles_count) == (1, 1, 1)
        own, authority = info.svid_chain
        assert (own.id.trust_domain, own.id.path, own.subject) == ("example.org", "/spire/server", "O=SPIRE,C=US")
        assert (authority.id.trust_domain, authority.id.path) == ("example.org", "")
        serial = ca.bundle.x509_authorities[0].certificate.serial_number
        assert authority.subject == f"SERIALNUMBER={serial},O=SPIFFE,C=US", "as Go writes it"


async def test_a_clock_by_which_our_own_certificate_is_not_valid_is_not_blamed_on_who_asks(tmp_path: Path) -> None:
    clock = MovableClock()
    async with running_ca(tmp_path, clock) as ca:
        clock.offset = -timedelta(hours=3)
        error = await refusal(debug_api.DebugStub(ca.admin).GetInfo(debug_api.GetInfoRequest()))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert str(error.details()).startswith("the server's own certificate does not verify at this time: ")


async def test_the_log_level_is_changed_and_reset(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as ca:
        stub = logger_api.LoggerStub(ca.admin)
        before = await stub.GetLogger(logger_api.GetLoggerRequest())
        changed = await stub.SetLogLevel(logger_api.SetLogLevelRequest(new_level=types_api.LogLevel.ERROR))
        assert changed.current_level == types_api.LogLevel.ERROR
        assert changed.launch_level == before.launch_level
        reset = await stub.ResetLogLevel(logger_api.ResetLogLevelRequest())
        assert reset.current_level == before.current_level
