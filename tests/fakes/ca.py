"""A CA for the agent's tests: a real gRPC server of the SPIRE API over a test PKI, which does what a test tells it to.

It can be away, slow, refuse a node with any `AGENT_*` detail, decline single entries, change entries, rotate its
bundle and have a wrong clock. It keeps SPIRE's rule for nodes: the first use of a renewed certificate makes the old
one void.

How a caller shows its certificate is the test's choice: `serial_of` reads it from the call. Over plain sockets it is
the user agent (`PlainDial` sets it); behind a real front door it is the `Caller`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from livery.identity import SpiffeId, TrustBundle, TrustDomain, X509Authority, X509Svid
from livery.runtime.clock import Clock
from livery.runtime.problems import encode_details
from livery.runtime.spire_types import bundle_to_wire, selector_to_wire, spiffe_id_to_wire
from livery.wire import agent_api, bundle_api, entry_api, svid_api, types_api
from livery_agent.identities.entry import Entry
from tests.pki import TestCa, Twist

SERIAL = "test-serial"  # in the user agent: how a caller over a plain socket shows its certificate
REASON = types_api.PermissionDeniedDetails
OK = types_api.Status(code=0, message="OK")


@dataclass
class NodeRow:
    """What the CA remembers of a node."""

    serial: int
    new_serial: int | None = None
    reattestable: bool = False


@dataclass
class Orders:
    """What the test tells the CA to do. Everything here may be changed while it runs."""

    away: bool = False  # every call fails with UNAVAILABLE
    held: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: calls in `slow` wait for it
    slow: set[str] = field(default_factory=set)  # names of RPCs that wait
    refuse: Any = None  # a PermissionDeniedDetails.Reason for every authenticated call
    refuse_next: list[Any] = field(default_factory=list)  # the same, for the next calls only
    turned_away: set[int] = field(default_factory=set)  # serials that are refused as TLS does it, without a status
    refuse_join: tuple[grpc.StatusCode, str] | None = None
    decline: dict[str, tuple[int, str]] = field(default_factory=dict)  # entry ID → status of its batch item
    max_batch: int = 500
    max_results: int = 500  # of a batch; what is over is left out of the answer
    page: int = 500
    federated: dict[str, TrustBundle] = field(default_factory=dict)
    jwt: bool = True
    status: bool = True  # whether it has PostStatus
    svid_ttl: timedelta = timedelta(hours=1)
    node_ttl: timedelta = timedelta(hours=1)
    jwt_ttl: timedelta = timedelta(minutes=5)
    skew: timedelta = timedelta(0)  # how wrong the CA's clock is
    lose_reply: set[str] = field(default_factory=set)  # RPCs that do their work and then fail
    after: dict[str, Callable[[], None]] = field(default_factory=dict)  # called when an RPC has done its work


class PublicKey:
    """A public key in the place of a key pair, for signing what came in a request."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def public_key(self) -> Any:
        return self._key


class FakeCa:
    """The CA of one trust domain. `start(path)` serves it on a plain unix socket."""

    def __init__(self, clock: Clock, trust_domain: str = "example.org") -> None:
        self.clock = clock
        self.trust_domain = TrustDomain(trust_domain)
        self.pki = TestCa(trust_domain, now=clock.now(), ttl=timedelta(days=3650))
        self.authorities: tuple[X509Authority, ...] = (X509Authority(self.pki.certificate),)
        self.jwt_authorities = (self.pki.jwt_authority(),)
        self.sequence = 1
        self.orders = Orders()
        self.orders.held.set()
        self.entries: dict[str, Entry] = {}
        self.nodes: dict[SpiffeId, NodeRow] = {}
        self.node_serials: set[int] = set()  # every one ever signed
        self.tokens: dict[str, bytes | None] = {}  # token → the key it is bound to
        self.calls: Counter[str] = Counter()
        self.statuses: list[agent_api.PostStatusRequest] = []
        self.signed: list[tuple[str, int]] = []  # entry ID, serial
        self.sent_entries: Counter[str] = Counter()
        self.asked: list[int] = []  # for how many entries each further question of a synchronisation was
        self.serial_of: Callable[[Any], int | None] = serial_in_metadata
        self._server: grpc.aio.Server | None = None

    # What a test arranges

    @property
    def bundle(self) -> TrustBundle:
        return TrustBundle(self.trust_domain, self.authorities, self.jwt_authorities, sequence=self.sequence)

    def add(self, *entries: Entry) -> None:
        for entry in entries:
            self.entries[entry.id] = entry

    def revise(self, entry_id: str, **changes: Any) -> None:
        """Change an entry, as an update does: its revision grows."""
        entry = self.entries[entry_id]
        self.entries[entry_id] = replace(entry, revision=entry.revision + 1, **changes)

    def rotate(self, *, taint: bool = False, drop: bool = False) -> None:
        """A new authority signs from now on; the old one stays in the bundle, tainted or dropped if asked for."""
        fresh = TestCa(self.trust_domain, now=self.clock.now(), ttl=timedelta(days=3650))
        old = () if drop else tuple(replace(a, tainted=taint) for a in self.authorities)
        self.pki = fresh
        self.authorities = (*old, X509Authority(fresh.certificate))
        keys = () if drop else tuple(replace(k, tainted=taint) for k in self.jwt_authorities)
        self.jwt_authorities = (*keys, fresh.jwt_authority())
        self.sequence += 1

    def forget_nodes(self) -> None:
        """The store was lost, or every node evicted."""
        self.nodes.clear()
        self.node_serials.clear()

    # Serving

    def add_to(self, server: grpc.aio.Server) -> None:
        agent_api.add_AgentServicer_to_server(_Agent(self), server)
        bundle_api.add_BundleServicer_to_server(_Bundle(self), server)
        entry_api.add_EntryServicer_to_server(_Entry(self), server)
        svid_api.add_SVIDServicer_to_server(_Svid(self), server)

    async def start(self, path: Path) -> None:
        self._server = grpc.aio.server()
        self.add_to(self._server)
        self._server.add_insecure_port(f"unix:{path}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    # What the services share

    async def enter(self, name: str, context: Any, *, anonymous: bool = False) -> SpiffeId | None:
        """The beginning of every call: its count, its delay, and who makes it."""
        self.calls[name] += 1
        if name in self.orders.slow:
            await self.orders.held.wait()
        if self.orders.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the CA is away")
        if anonymous:
            return None
        return await self._node_of(context)

    async def leave(self, name: str, context: Any) -> None:
        """The end of every call: its work is done, and now the reply may get lost."""
        self.orders.after.get(name, lambda: None)()
        if name in self.orders.lose_reply:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")

    async def _node_of(self, context: Any) -> SpiffeId:
        # SPIRE's order: expired (TLS does that here), unknown, banned, current, new, not active.
        if self.orders.refuse is not None:
            await deny(context, self.orders.refuse)
        if self.orders.refuse_next:
            await deny(context, self.orders.refuse_next.pop(0))
        serial = self.serial_of(context)
        if serial in self.orders.turned_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        for node_id, row in self.nodes.items():
            if serial is not None and serial == row.serial:
                return node_id
            if serial is not None and serial == row.new_serial:
                row.serial, row.new_serial = row.new_serial, None
                return node_id
        await deny(context, REASON.AGENT_NOT_ACTIVE if serial in self.node_serials else REASON.AGENT_NOT_ATTESTED)
        raise AssertionError

    def sign(self, spiffe_id: SpiffeId, csr: bytes, ttl: timedelta, name: str) -> types_api.X509SVID:
        request = x509.load_der_x509_csr(csr)
        now = self.clock.now() + self.orders.skew
        twist = Twist(key=PublicKey(request.public_key()), not_before=now - timedelta(seconds=10), not_after=now + ttl)
        leaf = self.pki.sign_leaf(str(spiffe_id), twist)
        self.signed.append((name, leaf.serial_number))
        chain = [c.public_bytes(serialization.Encoding.DER) for c in (leaf, *self.pki.above())]
        expires_at = int(leaf.not_valid_after_utc.timestamp())
        return types_api.X509SVID(cert_chain=chain, id=spiffe_id_to_wire(spiffe_id), expires_at=expires_at)

    def sign_node(self, node_id: SpiffeId, csr: bytes) -> tuple[types_api.X509SVID, int]:
        svid = self.sign(node_id, csr, self.orders.node_ttl, "node")
        serial = self.signed[-1][1]
        self.node_serials.add(serial)
        return svid, serial

    def entry_message(self, entry: Entry) -> types_api.Entry:
        return types_api.Entry(
            id=entry.id,
            spiffe_id=spiffe_id_to_wire(entry.spiffe_id),
            selectors=[selector_to_wire(s) for s in sorted(entry.selectors)],
            revision_number=entry.revision,
            created_at=entry.created_at,
            federates_with=[str(td) for td in entry.federates_with],
            hint=entry.hint,
            admin=entry.admin,
            downstream=entry.downstream,
            store_svid=entry.store_svid,
        )


class _Agent(agent_api.AgentServicer):
    def __init__(self, ca: FakeCa) -> None:
        self._ca = ca

    async def AttestAgent(self, requests: Any, context: Any) -> Any:
        await self._ca.enter("AttestAgent", context, anonymous=True)
        if self._ca.orders.refuse_join:
            await context.abort(*self._ca.orders.refuse_join)
        params = (await context.read()).params
        match params.data.type:
            case "join_token":
                node_id, reattestable = await self._by_token(params, context), False
            case "x509pop":
                leaf = self._leaf(params.data.payload)
                nonce = secrets.token_bytes(32)
                yield agent_api.AttestAgentResponse(challenge=_challenge(nonce))
                answer = (await context.read()).challenge_response
                if not _proves(leaf, nonce, answer):
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "nodeattestor(x509pop): bad signature")
                fingerprint = hashlib.sha1(leaf.public_bytes(serialization.Encoding.DER)).hexdigest()
                node_id, reattestable = SpiffeId.of(self._ca.trust_domain, f"/spire/agent/x509pop/{fingerprint}"), True
            case other:
                text = f'error getting node attestor: could not find node attestor type "{other}"'
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        svid, serial = self._ca.sign_node(node_id, params.params.csr)
        self._ca.nodes[node_id] = NodeRow(serial, reattestable=reattestable)
        await self._ca.leave("AttestAgent", context)
        result = agent_api.AttestAgentResponse.Result(svid=svid, reattestable=reattestable)
        yield agent_api.AttestAgentResponse(result=result)

    async def _by_token(self, params: Any, context: Any) -> SpiffeId:
        token = params.data.payload.decode()
        key = x509.load_der_x509_csr(params.params.csr).public_key()
        spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        bound = self._ca.tokens.get(token, b"")
        if bound is not None and bound != spki:
            text = "failed to attest: join token does not exist or has already been used"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        self._ca.tokens[token] = spki
        return SpiffeId.of(self._ca.trust_domain, f"/spire/agent/join_token/{token}")

    def _leaf(self, payload: bytes) -> x509.Certificate:
        return x509.load_der_x509_certificate(base64.b64decode(json.loads(payload)["certificates"][0]))

    async def RenewAgent(self, request: Any, context: Any) -> Any:
        node_id = await self._ca.enter("RenewAgent", context)
        row = self._ca.nodes[node_id]
        if row.reattestable:
            await deny(context, REASON.AGENT_MUST_REATTEST)
        svid, row.new_serial = self._ca.sign_node(node_id, request.params.csr)
        await self._ca.leave("RenewAgent", context)
        return agent_api.RenewAgentResponse(svid=svid)

    async def PostStatus(self, request: Any, context: Any) -> Any:
        await self._ca.enter("PostStatus", context)
        if not self._ca.orders.status:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unimplemented")
        self._ca.statuses.append(request)
        return agent_api.PostStatusResponse()


class _Bundle(bundle_api.BundleServicer):
    def __init__(self, ca: FakeCa) -> None:
        self._ca = ca

    async def GetBundle(self, request: Any, context: Any) -> Any:
        await self._ca.enter("GetBundle", context, anonymous=True)
        return bundle_to_wire(self._ca.bundle)

    async def GetFederatedBundle(self, request: Any, context: Any) -> Any:
        await self._ca.enter("GetFederatedBundle", context)
        bundle = self._ca.orders.federated.get(request.trust_domain)
        if bundle is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "bundle not found")
        return bundle_to_wire(bundle)


class _Entry(entry_api.EntryServicer):
    def __init__(self, ca: FakeCa) -> None:
        self._ca = ca

    async def SyncAuthorizedEntries(self, requests: Any, context: Any) -> Any:
        await self._ca.enter("SyncAuthorizedEntries", context)
        await context.read()
        entries = list(self._ca.entries.values())
        page = self._ca.orders.page
        if len(entries) <= page:
            self._ca.sent_entries.update(e.id for e in entries)
            yield entry_api.SyncAuthorizedEntriesResponse(entries=map(self._ca.entry_message, entries))
            return
        for part, more in _pages(entries, page):
            revisions = [
                entry_api.EntryRevision(id=e.id, revision_number=e.revision, created_at=e.created_at) for e in part
            ]
            yield entry_api.SyncAuthorizedEntriesResponse(entry_revisions=revisions, more=more)
        while (request := await context.read()) is not grpc.aio.EOF:
            assert list(request.ids) == sorted(request.ids)
            assert len(request.ids) <= page
            self._ca.asked.append(len(request.ids))
            wanted = [self._ca.entries[id_] for id_ in request.ids if id_ in self._ca.entries]
            self._ca.sent_entries.update(e.id for e in wanted)
            yield entry_api.SyncAuthorizedEntriesResponse(entries=map(self._ca.entry_message, wanted), more=False)


class _Svid(svid_api.SVIDServicer):
    def __init__(self, ca: FakeCa) -> None:
        self._ca = ca

    async def BatchNewX509SVID(self, request: Any, context: Any) -> Any:
        await self._ca.enter("BatchNewX509SVID", context)
        if len(request.params) > self._ca.orders.max_batch:
            text = f"rejecting request due to certificate signing rate limiting: rate ({len(request.params)}) exceeds"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        results = [self._result(params) for params in request.params]
        await self._ca.leave("BatchNewX509SVID", context)
        return svid_api.BatchNewX509SVIDResponse(results=results[: self._ca.orders.max_results])

    def _result(self, params: Any) -> svid_api.BatchNewX509SVIDResponse.Result:
        entry = self._ca.entries.get(params.entry_id)
        code, text = self._ca.orders.decline.get(params.entry_id, (0, ""))
        if entry is None:
            code, text = 5, "entry not found or not authorized"
        if code or entry is None:
            status = types_api.Status(code=code, message=text)
            return svid_api.BatchNewX509SVIDResponse.Result(status=status)
        svid = self._ca.sign(entry.spiffe_id, params.csr, self._ca.orders.svid_ttl, entry.id)
        return svid_api.BatchNewX509SVIDResponse.Result(status=OK, svid=svid)

    async def NewJWTSVID(self, request: Any, context: Any) -> Any:
        await self._ca.enter("NewJWTSVID", context)
        if not self._ca.orders.jwt:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "JWT functionality is disabled")
        entry = self._ca.entries.get(request.entry_id)
        if entry is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "entry not found or not authorized")
        now = self._ca.clock.now() + self._ca.orders.skew
        claims = {"iat": int(now.timestamp()), "exp": int((now + self._ca.orders.jwt_ttl).timestamp())}
        token = self._ca.pki.jwt_svid(entry.spiffe_id.path, list(request.audience), jti=secrets.token_hex(8), **claims)
        await self._ca.leave("NewJWTSVID", context)
        svid = types_api.JWTSVID(token=token, id=spiffe_id_to_wire(entry.spiffe_id), expires_at=claims["exp"])
        return svid_api.NewJWTSVIDResponse(svid=svid)


@dataclass
class PlainDialer:
    """A `CaDialer` over a plain unix socket, which shows its certificate's serial as metadata."""

    path: Path
    svid: X509Svid | None
    last_refusal: str | None = None
    channel: grpc.aio.Channel | None = None
    closed: bool = False

    async def start(self) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]  # to close one is to close its socket
        if self.svid is not None:
            options.append(("grpc.primary_user_agent", f"{SERIAL}={self.svid.serial:x}"))
        self.channel = grpc.aio.insecure_channel(f"unix:{self.path}", options=options)
        return self.channel

    async def close(self) -> None:
        self.closed = True
        if self.channel is not None:
            await self.channel.close()


@dataclass
class PlainDial:
    """Makes plain dialers and remembers them, newest last."""

    path: Path
    dialers: list[PlainDialer] = field(default_factory=list)

    def __call__(self, svid: X509Svid | None) -> PlainDialer:
        self.dialers.append(PlainDialer(self.path, svid))
        return self.dialers[-1]

    def join(self, trusted: TrustBundle | None) -> PlainDialer:
        return PlainDialer(self.path, None)


def serial_in_metadata(context: Any) -> int | None:
    """Who calls over a plain socket."""
    for key, value in context.invocation_metadata() or ():
        if key == "user-agent" and value.startswith(SERIAL):
            return int(value.split()[0].removeprefix(f"{SERIAL}="), 16)
    return None


async def deny(context: Any, reason: Any) -> None:
    """Refuse a node as SPIRE does, with the reason in the details trailer."""
    text = "agent is not authorized"
    details = encode_details(grpc.StatusCode.PERMISSION_DENIED, text, [REASON(reason=reason)])
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, text, (("grpc-status-details-bin", details),))


def _pages(items: list[Any], size: int) -> Iterable[tuple[list[Any], bool]]:
    for start in range(0, len(items), size):
        yield items[start : start + size], start + size < len(items)


def _challenge(nonce: bytes) -> bytes:
    shown = {"nonce": base64.b64encode(nonce).decode()}
    return json.dumps({"rsa_signature": None, "ecdsa_signature": shown}).encode()


def _proves(leaf: x509.Certificate, nonce: bytes, answer: bytes) -> bool:
    signature = json.loads(answer)["ecdsa_signature"]
    theirs, r, s = (base64.b64decode(signature[name]) for name in ("nonce", "r", "s"))
    encoded = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(encoded, nonce + theirs, ec.ECDSA(hashes.SHA256()))
    except Exception:
        return False
    return True
