"""The policy server as it runs: `main.run`, a Workload API, a unix socket and mutual TLS, with curl as the client."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from livery.identity import SpiffeId
from livery.runtime.clock import SystemClock
from livery.workload import WorkloadSource
from livery.workload.errors import WorkloadError
from livery.workload.http_client import client
from livery_policy.config import PolicyConfig
from livery_policy.enforce.decider import RemoteDecider
from livery_policy.errors import InvalidPolicies
from livery_policy.main import run
from livery_policy.model.decision import Reason
from tests.fakes.workload_api import FakeWorkloadApi, x509_message
from tests.pki import TestCa
from tests.policies import INVENTORY, ORDERS, READ_ITEMS, get

POLICY = "/policy"
EVALUATION = "/access/v1/evaluation"


def question(path: str = "/items/1", **changes: object) -> dict[str, object]:
    return {
        "subject": {"type": "spiffe", "id": ORDERS},
        "action": {"name": "GET"},
        "resource": {"type": "service", "id": INVENTORY},
        "context": {"http": {"path": path}},
        **changes,
    }


@dataclass
class Running:
    """A policy server, its authority and its files."""

    state: Path
    ca: TestCa
    socket: str = ""
    address: str = ""
    ready: Mapping[str, object] = field(default_factory=dict)

    def credentials(self, path: str, name: str = "client") -> tuple[str, ...]:
        """curl's options for an SVID of ours."""
        svid = self.ca.issue(path)
        (self.state / f"{name}.pem").write_bytes(svid.chain_pem())
        (self.state / f"{name}.key").write_bytes(svid.key_pem())
        return ("--cert", str(self.state / f"{name}.pem"), "--key", str(self.state / f"{name}.key"))

    @property
    def over_tls(self) -> tuple[str, ...]:
        (self.state / "ca.pem").write_bytes(self.ca.bundle().to_pem())
        return ("--cacert", str(self.state / "ca.pem"))

    @property
    def over_socket(self) -> tuple[str, ...]:
        return ("--unix-socket", self.socket)


@asynccontextmanager
async def running(tmp_path: Path, **settings: Any) -> AsyncIterator[Running]:
    """A server over `tmp_path/policies`, with TLS unless `listen_port` is None."""
    made = Running(tmp_path, TestCa("demo.test", now=datetime.now(UTC)))
    (tmp_path / "policies").mkdir(exist_ok=True)
    (tmp_path / "policies" / "demo.cedar").write_text(READ_ITEMS)
    async with FakeWorkloadApi(tmp_path / "w.sock") as workload_api:
        await workload_api.say(x509_message([made.ca.issue(POLICY, dns_names=["localhost"])], made.ca.bundle()))
        config = PolicyConfig.model_validate(
            {
                "policy_dir": tmp_path / "policies",
                "socket": tmp_path / "api.sock",
                "listen_port": 0,
                "workload_endpoint": workload_api.endpoint,
                "admit_ids": ["spiffe://demo.test/pep"],
                "reload_interval": "100ms",
                "log_level": "critical",
                "decision_log": "none",
                **settings,
            }
        )
        ready: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(run(config, SystemClock(), ready.set_result))
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        made.ready = ready.result()
        made.socket = str(made.ready["socket"]).removeprefix("unix:")
        made.address = str(made.ready.get("address", ""))
        try:
            yield made
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    headers: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def curl(url: str, *options: str, document: object = None, as_json: bool = True) -> Answer:
    """One request of an unmodified client."""
    more: list[str] = []
    if document is not None:
        data = document if isinstance(document, str) else json.dumps(document)
        more = ["--data-binary", data] + (["--header", "content-type: application/json"] if as_json else [])
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--max-time", "20", "--include", *options, *more, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    head, _, body = out.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), head.decode().lower(), body)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as made:
        yield made


async def asked(server: Running, door: str, document: object, **options: Any) -> Answer:
    """The question through one of the doors, with credentials that are admitted."""
    if door == "socket":
        return await curl(f"http://policy{EVALUATION}", *server.over_socket, document=document, **options)
    credentials = (*server.over_tls, *server.credentials("/pep"))
    return await curl(f"https://{server.address}{EVALUATION}", *credentials, document=document, **options)


@pytest.mark.parametrize("door", ["socket", "mtls"])
async def test_curl_is_told_yes_no_and_what_it_did_wrong(server: Running, door: str) -> None:
    allowed = await asked(server, door, question())
    assert (allowed.status, allowed.json["decision"]) == (200, True)
    assert "content-type: application/json" in allowed.headers
    denied = await asked(server, door, question("/orders/1"))
    assert (denied.status, denied.json["decision"]) == (200, False)
    for document in ("{", '{"a":1,"a":1}', '{"a":' * 10_000, {}):
        malformed = await asked(server, door, document)
        assert (malformed.status, "content-type: text/plain" in malformed.headers) == (400, True)
    assert (await asked(server, door, question(), as_json=False)).status == 400
    assert (await asked(server, door, question())).json["decision"] is True


async def test_without_credentials_401_and_not_admitted_403(server: Running) -> None:
    url = f"https://{server.address}{EVALUATION}"
    assert (await curl(url, *server.over_tls, document=question())).status == 401
    other = (*server.over_tls, *server.credentials("/other"))
    assert (await curl(url, *other, document=question())).status == 403


async def test_a_socket_uid_that_is_not_admitted_is_403_and_still_administers(tmp_path: Path) -> None:
    """The list of who may ask is the list; administration is another right."""
    async with running(tmp_path, admit_uids=[65533], listen_port=None) as server:
        answer = await curl(f"http://policy{EVALUATION}", *server.over_socket, document=question())
        assert answer.status == 403
        assert (await curl("http://policy/admin/version", *server.over_socket)).status == 200
        assert server.ready == {"socket": f"unix:{server.socket}"}


async def test_what_is_read_at_most_is_as_configured(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_body": "2MiB", "max_evaluations": 2, "listen_port": None}
    call = get()
    http: Any = call.context["http"]
    large = replace(call, context={"http": {**http, "query": "x" * 1_500_000}})
    async with running(tmp_path, **settings) as server:
        async with RemoteDecider(f"unix:{server.socket}", timeout=20) as decider:
            assert (await decider.decide(large)).reason is Reason.PERMITTED
        for items, status in ((2, 200), (3, 400)):
            batch = question(evaluations=[{}] * items)
            answer = await curl("http://policy/access/v1/evaluations", *server.over_socket, document=batch)
            assert answer.status == status


async def test_others_may_pass_through_the_sockets_directory_and_not_look_around_in_it(tmp_path: Path) -> None:
    async with running(tmp_path, socket=tmp_path / "run" / "policy" / "api.sock", listen_port=None) as server:
        assert Path(server.socket).parent.stat().st_mode & 0o777 == 0o711
        assert Path(server.socket).stat().st_mode & 0o777 == 0o666


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user can enter, which pytest's own cannot be."""
    with tempfile.TemporaryDirectory(prefix="livery-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
async def test_another_user_may_connect_and_may_nothing_else(open_path: Path) -> None:
    async with running(open_path, listen_port=None) as server:
        document = json.dumps(question())
        for path, data in ((EVALUATION, document), ("/admin/version", ""), ("/metrics", ""), ("/health", "")):
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "curl", "--silent", "--include"]
            more = ["--data-binary", data, "--header", "content-type: application/json"] if data else []
            process = await asyncio.create_subprocess_exec(
                *command, *server.over_socket, *more, f"http://policy{path}", stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert out.split()[1] == (b"200" if path == "/health" else b"403"), path


async def test_administration_is_not_for_tls_however_well_known_the_caller(server: Running) -> None:
    for credentials, status in (((), 401), (server.credentials("/pep"), 403)):
        for path in ("/admin/version", "/admin/policies", "/docs"):
            answer = await curl(f"https://{server.address}{path}", *server.over_tls, *credentials)
            assert answer.status == status
        reload = ("--request", "POST", *server.over_tls, *credentials)
        assert (await curl(f"https://{server.address}/admin/reload", *reload)).status == status
    assert (await curl(f"https://{server.address}/health", *server.over_tls)).json == {"status": "ok"}


async def test_the_metadata_says_where_to_ask_and_that_is_where_it_is(server: Running) -> None:
    answer = await curl(f"https://{server.address}/.well-known/authzen-configuration", *server.over_tls)
    assert answer.json["policy_decision_point"] == f"https://{server.address}"
    endpoint = answer.json["access_evaluation_endpoint"]
    credentials = (*server.over_tls, *server.credentials("/pep"))
    assert (await curl(endpoint, *credentials, document=question())).json["decision"] is True


async def test_a_denial_is_explained_to_the_administrator_by_its_id(server: Running) -> None:
    denied = await asked(server, "mtls", question("/orders/1"))
    record = await curl(f"http://policy/admin/decisions/{denied.json['context']['id']}", *server.over_socket)
    assert record.json["nearest"][0]["failed"] == ['context.http.path like "/items/*"']
    assert record.json["asked_by"] == "spiffe://demo.test/pep"


async def test_a_changed_policy_decides_without_a_restart_and_a_broken_one_never(server: Running) -> None:
    policies = server.state / "policies"
    (policies / "more.cedar").write_text('@id("all") permit(principal, action, resource);')
    async with asyncio.timeout(20):
        while not (await asked(server, "socket", question("/orders/1"))).json["decision"]:
            await asyncio.sleep(0.02)
    (policies / "more.cedar").write_text('@id("all") permit(principal')
    async with asyncio.timeout(20):
        while (await curl("http://policy/health", *server.over_socket)).json["status"] != "degraded":
            await asyncio.sleep(0.02)
    assert (await asked(server, "socket", question("/orders/1"))).json["decision"] is True
    status = (await curl("http://policy/admin/policies", *server.over_socket)).json
    assert (status["findings"][0]["file"], status["findings"][0]["line"]) == ("more.cedar", 1)


async def test_the_remote_decider_asks_over_the_socket_and_over_tls(server: Running) -> None:
    async with RemoteDecider(f"unix:{server.socket}") as decider:
        assert (await decider.decide(get())).reason is Reason.PERMITTED
        assert (await decider.decide(get("/orders"))).reason is Reason.NOT_PERMITTED
    async with FakeWorkloadApi(server.state / "pep.sock") as workload_api:
        await workload_api.say(x509_message([server.ca.issue("/pep")], server.ca.bundle()))
        async with (
            WorkloadSource(workload_api.endpoint) as source,
            client(source, SpiffeId.parse(f"spiffe://demo.test{POLICY}")) as http,
        ):
            decider = RemoteDecider(f"https://{server.address}", client=http)
            assert (await decider.decide(get())).reason is Reason.PERMITTED
        async with (
            WorkloadSource(workload_api.endpoint) as source,
            client(source, SpiffeId.parse("spiffe://demo.test/somebody-else")) as http,
        ):
            decider = RemoteDecider(f"https://{server.address}", client=http)
            assert (await decider.decide(get())).reason is Reason.NO_DECISION


async def test_a_server_does_not_start_on_invalid_policies(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "bad.cedar").write_text("\npermit(principal, action, resource);")
    with pytest.raises(InvalidPolicies, match=r"bad\.cedar:2"):
        async with running(tmp_path):
            pass


async def test_a_server_that_gets_no_identity_says_so(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError):
        async with running(tmp_path, workload_endpoint=f"unix://{tmp_path}/nobody.sock", identity_timeout="300ms"):
            pass
