"""A small agent that speaks the server API and nothing else: attest, renew, sync, ask for SVIDs.

For conformance tests and benchmarks. It verifies the server as a real agent does, keeps nothing on disk, decides
nothing and retries nothing: what the server answered is what the test sees.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from livery.identity import BundleMap, SpiffeId, TrustBundle, TrustDomain, X509Svid
from livery.runtime.clock import Clock, SystemClock
from livery.runtime.dialer import Dialer
from livery.runtime.spire_types import bundle_from_wire
from livery.wire import agent_api, bundle_api, entry_api, svid_api, types_api

SYNC_MASK = types_api.EntryMask(
    spiffe_id=True,
    selectors=True,
    federates_with=True,
    admin=True,
    downstream=True,
    revision_number=True,
    store_svid=True,
    hint=True,
    additional_attributes=True,
    created_at=True,
)
Answer = Callable[[bytes], bytes]


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key, as agents make them."""
    return ec.generate_private_key(ec.SECP256R1())


AGENTS_SUBJECT = x509.Name(
    [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")]
)


def new_csr(
    key: Any,
    *names: x509.GeneralName,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    subject: x509.Name = AGENTS_SUBJECT,
) -> bytes:
    """A CSR as an agent writes it; `names` go into its SAN, `extra` are further extensions it asks for."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def svid_of(message: types_api.X509SVID, key: Any) -> X509Svid:
    """The SVID the server sent, with the key it is for."""
    pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return X509Svid.from_der(b"".join(message.cert_chain), pkcs8)


def prove_possession(key: Any) -> Answer:
    """The agent's half of x509pop, written from the protocol's description."""
    kind = "rsa_signature" if isinstance(key, rsa.RSAPrivateKey) else "ecdsa_signature"

    def answer(challenge: bytes) -> bytes:
        own = hashlib.sha256(challenge).digest()  # any 32 bytes will do
        nonce = base64.b64decode(json.loads(challenge)[kind]["nonce"])
        proof = {"nonce": own, **_signature(key, hashlib.sha256(nonce + own).digest())}
        return json.dumps({kind: {name: base64.b64encode(value).decode() for name, value in proof.items()}}).encode()

    return answer


def _signature(key: Any, digest: bytes) -> dict[str, bytes]:
    if isinstance(key, rsa.RSAPrivateKey):
        salted = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        return {"signature": key.sign(digest, salted, Prehashed(hashes.SHA256()))}
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
    return {"r": r.to_bytes((r.bit_length() + 7) // 8), "s": s.to_bytes((s.bit_length() + 7) // 8)}


class NodeAgent:
    """One agent of one server. Without an SVID it calls as nobody; `use` makes it call as somebody.

    `async with NodeAgent(address, bundle, run_dir) as agent: await agent.join(token)`.
    """

    def __init__(self, address: str, bundle: TrustBundle, run_dir: Path, clock: Clock | None = None) -> None:
        self.trust_domain: TrustDomain = bundle.trust_domain
        self.bundle = bundle
        self.svid: X509Svid | None = None
        self._address = address
        self._run_dir = run_dir
        self._clock = clock or SystemClock()
        self._dialer: Dialer | None = None
        self.channel: grpc.aio.Channel

    async def __aenter__(self) -> Self:
        await self.use(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._dialer is not None:
            await self._dialer.close()

    @property
    def id(self) -> SpiffeId:
        """The agent's SPIFFE ID."""
        assert self.svid is not None, "the agent has not joined"
        return self.svid.id

    async def use(self, svid: X509Svid | None) -> None:
        """Call with this SVID from now on, over a new connection."""
        if self._dialer is not None:
            await self._dialer.close()
        self.svid = svid
        self._dialer = self._new_dialer(svid)
        self.channel = await self._dialer.start()

    async def join(self, token: str, key: Any = None) -> X509Svid:
        """Attest with a join token and use the SVID that comes back."""
        return await self._join("join_token", token.encode(), key, None)

    async def join_with(self, node_key: Any, chain: Sequence[x509.Certificate], key: Any = None) -> X509Svid:
        """Attest with a node certificate (leaf first) and use the SVID that comes back."""
        ders = [base64.b64encode(cert.public_bytes(Encoding.DER)).decode() for cert in chain]
        payload = json.dumps({"certificates": ders}).encode()
        return await self._join("x509pop", payload, key, prove_possession(node_key))

    async def attest(
        self, method: str, payload: bytes, csr: bytes, answer: Answer | None = None
    ) -> agent_api.AttestAgentResponse.Result:
        """Attest over a connection of its own, on which no certificate is shown, as agents do."""
        async with self.as_nobody() as channel:
            stream = agent_api.AgentStub(channel).AttestAgent()
            params = agent_api.AttestAgentRequest.Params(
                data=types_api.AttestationData(type=method, payload=payload),
                params=agent_api.AgentX509SVIDParams(csr=csr),
            )
            await stream.write(agent_api.AttestAgentRequest(params=params))
            reply = await stream.read()
            while reply is not grpc.aio.EOF and reply.WhichOneof("step") == "challenge":
                assert answer is not None, "the server challenges an attestation that has no answer"
                await stream.write(agent_api.AttestAgentRequest(challenge_response=answer(reply.challenge)))
                reply = await stream.read()
            await stream.done_writing()
            if reply is grpc.aio.EOF:
                raise grpc.aio.AioRpcError(
                    await stream.code(),
                    grpc.aio.Metadata(),
                    await stream.trailing_metadata() or grpc.aio.Metadata(),
                    await stream.details(),
                )
            result: agent_api.AttestAgentResponse.Result = reply.result
            return result

    async def renew(self, key: Any = None) -> X509Svid:
        """A new SVID, which is not in use yet: `use` it, and the first call makes the old one end."""
        key = key or new_key()
        request = agent_api.RenewAgentRequest(params=agent_api.AgentX509SVIDParams(csr=new_csr(key)))
        response = await agent_api.AgentStub(self.channel).RenewAgent(request)
        return svid_of(response.svid, key)

    async def sync(self, known: Sequence[str] = ()) -> list[types_api.Entry]:
        """The entries this agent is entitled to. Where they come as revisions, all but the `known` ones are fetched."""
        stream = entry_api.EntryStub(self.channel).SyncAuthorizedEntries()
        await stream.write(entry_api.SyncAuthorizedEntriesRequest(output_mask=SYNC_MASK))
        first = await stream.read()
        if not first.entry_revisions:
            await stream.done_writing()
            return list(first.entries)
        revisions = [revision.id for revision in first.entry_revisions]
        while first.more:
            first = await stream.read()
            revisions += [revision.id for revision in first.entry_revisions]
        found: list[types_api.Entry] = []
        for page in _pages(sorted(set(revisions) - set(known)), 500):
            await stream.write(entry_api.SyncAuthorizedEntriesRequest(ids=page))
            more = True
            while more:
                reply = await stream.read()
                found += reply.entries
                more = reply.more
        await stream.done_writing()
        return found

    async def batch_new(self, wanted: Sequence[tuple[str, bytes]]) -> list[svid_api.BatchNewX509SVIDResponse.Result]:
        """An SVID for each (entry id, CSR), or the status that says why not."""
        params = [svid_api.NewX509SVIDParams(entry_id=entry_id, csr=csr) for entry_id, csr in wanted]
        response = await svid_api.SVIDStub(self.channel).BatchNewX509SVID(
            svid_api.BatchNewX509SVIDRequest(params=params)
        )
        return list(response.results)

    async def fetch_bundle(self) -> TrustBundle:
        """The server's bundle as it says it is now; it is trusted from then on."""
        self.bundle = bundle_from_wire(
            await bundle_api.BundleStub(self.channel).GetBundle(bundle_api.GetBundleRequest())
        )
        return self.bundle

    @asynccontextmanager
    async def as_nobody(self) -> AsyncIterator[grpc.aio.Channel]:
        """A connection on which no certificate is shown."""
        dialer = self._new_dialer(None)
        try:
            yield await dialer.start()
        finally:
            await dialer.close()

    async def _join(self, method: str, payload: bytes, key: Any, answer: Answer | None) -> X509Svid:
        key = key or new_key()
        result = await self.attest(method, payload, new_csr(key), answer)
        svid = svid_of(result.svid, key)
        await self.use(svid)
        return svid

    def _new_dialer(self, svid: X509Svid | None) -> Dialer:
        return Dialer(
            address=self._address,
            expected=SpiffeId.of(self.trust_domain, "/spire/server"),
            identity=lambda: svid,
            bundles=lambda: BundleMap.of(self.bundle),
            run_dir=self._run_dir,
            clock=self._clock,
        )


def _pages(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
