"""What the server API answers, case by case from tests/vectors/ca_status.json, over real connections."""

from __future__ import annotations

import base64
import json
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from livery.wire import (
    agent_api,
    bundle_api,
    debug_api,
    entry_api,
    localauthority_api,
    logger_api,
    svid_api,
    trustdomain_api,
)
from tests.fakes import hostile_csrs
from tests.fakes.node_agent import new_csr, new_key, svid_of
from tests.integration.doors import now
from tests.integration.running_ca import MovableClock, RunningCa, an_entry, reasons_of, running_ca
from tests.pki import TestCa, Twist, usage

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ca_status.json").read_text())
APIS = (agent_api, bundle_api, debug_api, entry_api, localauthority_api, logger_api, svid_api, trustdomain_api)
OTHERS = {"limits": {"attestation": 0, "max_connections": 256}}


def descriptor_of(method: str) -> Any:
    """The method's descriptor, with its input and output types."""
    service, _, name = f"spire.api.server.{method}".rpartition("/")
    for api in APIS:
        message = next(getattr(api, each) for each in api.__all__ if each.endswith("Request"))
        found = message.DESCRIPTOR.file.services_by_name.get(service.rpartition(".")[2])
        if found is not None and found.full_name == service:
            return found.methods_by_name[name]
    raise LookupError(method)


class Cast:
    """Those who call, and the bytes that `@names` in the vectors stand for."""

    def __init__(self) -> None:
        self.channels: dict[str, grpc.aio.Channel] = {}
        self.values: dict[str, bytes | str] = {}
        self.params: list[dict[str, str]] = []

    def fill(self, value: Any) -> Any:
        """The request with its names replaced; protobuf's JSON writes bytes in base64."""
        match value:
            case dict():
                return {name: self.fill(each) for name, each in value.items()}
            case list():
                return [self.fill(each) for each in value]
            case "@501_params":
                return self.params
            case str() if value.startswith("@bytes:"):
                return base64.b64encode(value.removeprefix("@bytes:").encode()).decode()
            case str() if value.startswith("@"):
                held = self.values[value[1:]]
                return held if isinstance(held, str) else base64.b64encode(held).decode()
        return value


def payload(*ders: bytes) -> bytes:
    return json.dumps({"certificates": [base64.b64encode(der).decode() for der in ders]}).encode()


def huge_certificate(issuer: TestCa) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.certificate.subject)
        .public_key(hostile_csrs.HUGE)
        .serial_number(1)
        .not_valid_before(issuer.certificate.not_valid_before_utc)
        .not_valid_after(issuer.certificate.not_valid_after_utc)
    )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


async def cast(stack: AsyncExitStack, ca: RunningCa, node_ca: TestCa) -> Cast:
    """Every class of caller, each on a connection of its own."""
    found = Cast()
    found.channels["local"] = ca.admin
    agent = await stack.enter_async_context(ca.joined())
    other = await stack.enter_async_context(ca.joined())
    found.channels["agent"] = agent.channel
    names = {"workload": {}, "admin": {"admin": True}, "downstream": {"downstream": True}}
    mine = await ca.create(*(an_entry(agent.id, f"/{name}", **fields) for name, fields in names.items()))
    (foreign,) = await ca.create(an_entry(other.id, "/foreign"))
    keys = [new_key() for _ in mine]
    results = await agent.batch_new([(e.id, new_csr(key)) for e, key in zip(mine, keys, strict=True)])
    for name, key, result in zip(names, keys, results, strict=True):
        caller = await stack.enter_async_context(ca.agent())
        await caller.use(svid_of(result.svid, key))
        found.channels[name] = caller.channel
    pop = await stack.enter_async_context(ca.agent())
    node_key = new_key()
    twist = Twist(subject="node", key=node_key, key_usage=usage(digital_signature=True), san=False)
    await pop.join_with(node_key, [node_ca.sign_leaf("", twist)])
    found.channels["pop_agent"] = pop.channel
    nobody = await stack.enter_async_context(ca.agent())
    found.channels["nobody"] = nobody.channel
    found.values |= {"entry": mine[0].id, "foreign_entry": foreign.id}
    found.params = [{"entryId": mine[0].id}] * 501
    await fill_values(found, ca, node_ca)
    return found


async def fill_values(found: Cast, ca: RunningCa, node_ca: TestCa) -> None:
    """Tokens, CSRs and certificates, sound and hostile."""
    stranger = TestCa("nodes.test", now=node_ca.now, name=node_ca.name)
    twist = Twist(subject="node", key_usage=usage(digital_signature=True), san=False)
    ours = uri("spiffe://example.org/minted")
    key = new_key()
    banned_key, banned_token = new_key(), await ca.token()
    async with ca.agent() as banned:
        await banned.join(banned_token, banned_key)
        message = agent_api.BanAgentRequest()
        message.id.trust_domain, message.id.path = "example.org", banned.id.path
        await ca.agents.BanAgent(message)
    found.values |= {
        "csr": new_csr(key),
        "forged_csr": hostile_csrs.forged(),
        "huge_csr": hostile_csrs.huge(),
        "greedy_csr": hostile_csrs.greedy(),
        "minting_csr": new_csr(key, ours, x509.DNSName("minted.example.org")),
        "two_names_csr": new_csr(key, ours, uri("spiffe://example.org/too")),
        "url_csr": new_csr(key, uri("https://example.org/minted")),
        "reserved_csr": new_csr(key, uri("spiffe://example.org/spire/server")),
        "other_domain_csr": new_csr(key, uri("spiffe://other.org/minted")),
        "bad_dns_csr": new_csr(key, ours, x509.DNSName("-bad")),
        "wildcard_csr": new_csr(key, ours, x509.DNSName("a.example"), x509.DNSName("*.example")),
        "six_certificates": payload(*[b"garbage"] * 6),
        "huge_certificate": payload(huge_certificate(node_ca)),
        "strange_certificate": payload(stranger.sign_leaf("", twist).public_bytes(Encoding.DER)),
        "banned_token": banned_token.encode(),
        "banned_csr": new_csr(banned_key),
    }


async def answer(channel: grpc.aio.Channel, method: str, request: dict[str, Any]) -> Message | grpc.aio.AioRpcError:
    """Call the method with one message; of a stream, the first answer."""
    descriptor = descriptor_of(method)
    wanted, given = GetMessageClass(descriptor.output_type), GetMessageClass(descriptor.input_type)
    message = ParseDict(request, given())
    path = f"/spire.api.server.{method}"
    try:
        if method.endswith(("/AttestAgent", "/SyncAuthorizedEntries")):
            stream = channel.stream_stream(path, given.SerializeToString, wanted.FromString)([message])
            return await anext(aiter(stream))
        return await channel.unary_unary(path, given.SerializeToString, wanted.FromString)(message)
    except grpc.aio.AioRpcError as error:
        return error


def differences(case: dict[str, Any], got: Message | grpc.aio.AioRpcError) -> list[str]:
    """What is not as the case says."""
    failed = isinstance(got, grpc.aio.AioRpcError)
    code, text = (got.code().name, got.details() or "") if failed else ("OK", "")
    found = [] if code == case["code"] else [f"code {code}: {text}"]
    found += _wrong_text(case, text)
    if "reasons" in case and failed and list(reasons_of(got)) != case["reasons"]:
        found.append(f"reasons {reasons_of(got)}")
    if "results" in case and not failed:
        statuses = [each.status for each in got.results]  # type: ignore[attr-defined]
        if len(statuses) != len(case["results"]):
            found.append(f"{len(statuses)} results")
        for expected, status in zip(case["results"], statuses, strict=False):
            if status.code != expected["code"]:
                found.append(f"item code {status.code} ({status.message}), not {expected}")
            found += _wrong_text(expected, status.message)
    return found


def _wrong_text(expected: dict[str, Any], text: str) -> list[str]:
    if "text" in expected and text != expected["text"]:
        return [f"text {text!r}, not {expected['text']!r}"]
    if not text.startswith(expected.get("begins", "")):
        return [f"text {text!r} does not begin {expected['begins']!r}"]
    return []


async def test_every_answer_is_as_the_vectors_say(tmp_path: Path) -> None:
    """One server, the cases in order; all that differ are told at once."""
    node_ca = TestCa("nodes.test", now=now(), name="Node root", spiffe_id=None)
    bundle = tmp_path / "nodes.pem"
    bundle.write_bytes(node_ca.certificate.public_bytes(Encoding.PEM))
    async with AsyncExitStack() as stack:
        x509pop = {"ca_bundle_paths": [bundle]}
        clock = MovableClock()
        ca = await stack.enter_async_context(running_ca(tmp_path, clock, x509pop=x509pop, **OTHERS))
        actors = await cast(stack, ca, node_ca)
        actors.values["ended_token"] = (await ca.token(ttl=1)).encode()
        clock.offset += timedelta(seconds=2)
        wrong = []
        for case in VECTORS["cases"]:
            got = await answer(actors.channels[case["caller"]], case["method"], actors.fill(case["request"]))
            wrong += [f"{case['name']}: {each}" for each in differences(case, got)]
        assert not wrong, "\n".join(wrong)


def test_every_method_that_is_offered_has_a_case() -> None:
    offered = {
        "Agent": "AttestAgent RenewAgent PostStatus ListAgents GetAgent CountAgents DeleteAgent BanAgent"
        " CreateJoinToken",
        "Entry": "CountEntries ListEntries GetEntry BatchCreateEntry BatchUpdateEntry BatchDeleteEntry"
        " SyncAuthorizedEntries",
        "SVID": "BatchNewX509SVID NewJWTSVID MintX509SVID MintJWTSVID",
        "Bundle": "CountBundles GetBundle GetFederatedBundle ListFederatedBundles",
    }
    cased = {case["method"].rpartition(".")[2] for case in VECTORS["cases"]}
    assert {f"{service}/{name}" for service, names in offered.items() for name in names.split()} <= cased
