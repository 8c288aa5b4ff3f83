"""The authority's half of x509pop: what it refuses before any cryptography, what it verifies, what it learns."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from livery_ca.attest import pop_chain, pop_twin
from livery_ca.attest.attestor import AttestationRefused, Attested, Evidence, MalformedEvidence
from livery_ca.attest.pop_chain import ChainLimits
from livery_ca.attest.x509pop import X509PopAttestor
from tests.fakes.clock import START
from tests.pki import TestCa, Twist, new_key, unreadable_name, usage
from tests.unit.ca.doors.values import HOUR, OURS

SIGNS = usage(digital_signature=True)
ROOT = TestCa("nodes.test", now=START, name="Node root", spiffe_id=None)


def chain_of(issuer: TestCa, *, uri: str = "", **twists: Any) -> tuple[Any, tuple[x509.Certificate, ...]]:
    """A node's key and certificates: with no SAN at all unless a URI is given, as ordinary PKIs issue them."""
    key = twists.pop("key", None) or new_key()
    twists = {"subject": "node-1", "key_usage": SIGNS, "extended_uses": None, **twists}
    leaf = issuer.sign_leaf(uri, Twist(key=key, san=bool(uri), not_before=START - HOUR, **twists))
    return key, (leaf, *issuer.above())


def payload_of(chain: tuple[x509.Certificate, ...]) -> bytes:
    ders = [base64.b64encode(cert.public_bytes(Encoding.DER)).decode() for cert in chain]
    return json.dumps({"certificates": ders}).encode()


class Agent:
    """The agent's half, written from the protocol's description alone; `spoil` changes the response."""

    def __init__(self, key: Any, spoil: dict[str, Any] | None = None) -> None:
        self.key = key
        self.spoil = spoil or {}
        self.challenges: list[dict[str, Any]] = []

    async def __call__(self, challenge: bytes) -> bytes:
        self.challenges.append(json.loads(challenge))
        kind = "rsa_signature" if isinstance(self.key, rsa.RSAPrivateKey) else "ecdsa_signature"
        nonce = base64.b64decode(self.challenges[-1][kind]["nonce"])
        own = b"a" * 32
        digest = hashlib.sha256(nonce + own).digest()
        answer: dict[str, bytes] = {"nonce": own}
        if isinstance(self.key, rsa.RSAPrivateKey):
            salted = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
            answer["signature"] = self.key.sign(digest, salted, Prehashed(hashes.SHA256()))
        else:
            r, s = decode_dss_signature(self.key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
            answer |= {"r": r.to_bytes((r.bit_length() + 7) // 8), "s": s.to_bytes((s.bit_length() + 7) // 8)}
        answer |= self.spoil
        other = "ecdsa_signature" if kind == "rsa_signature" else "rsa_signature"
        return json.dumps({kind: {k: base64.b64encode(v).decode() for k, v in answer.items()}, other: None}).encode()


async def attest(chain: tuple[x509.Certificate, ...], agent: Any, *, at: Any = START) -> Attested:
    attestor = X509PopAttestor(OURS, [ROOT.certificate])
    return await attestor.attest(Evidence(payload_of(chain), b"k" * 32, at), agent)


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "rsa-2048"])
async def test_an_agent_that_has_its_certificates_key_is_admitted(kind: str) -> None:
    key, chain = chain_of(ROOT, key=new_key(kind))
    attested = await attest(chain, Agent(key))
    fingerprint = hashlib.sha1(chain[0].public_bytes(Encoding.DER), usedforsecurity=False).hexdigest()
    assert str(attested.agent_id) == f"spiffe://example.org/spire/agent/x509pop/{fingerprint}"
    assert attested.can_reattest
    assert attested.writes == ()


async def test_the_challenge_names_the_leafs_kind_of_key_and_null_for_the_other() -> None:
    key, chain = chain_of(ROOT)
    agent = Agent(key)
    await attest(chain, agent)
    (challenge,) = agent.challenges
    assert challenge["rsa_signature"] is None
    assert len(base64.b64decode(challenge["ecdsa_signature"]["nonce"])) == 32


async def test_no_two_challenges_are_alike() -> None:
    key, chain = chain_of(ROOT)
    agent = Agent(key)
    await attest(chain, agent)
    await attest(chain, agent)
    assert agent.challenges[0] != agent.challenges[1]


async def test_the_certificate_says_in_selectors_who_the_node_is() -> None:
    middle = ROOT.intermediate(name="Site", spiffe_id=None)
    uri = "x509pop://example.org/role/web/front"
    key, chain = chain_of(middle, uri=uri, serial=0xABC)
    attested = await attest(chain, Agent(key))
    fingerprints = [
        hashlib.sha1(cert.public_bytes(Encoding.DER), usedforsecurity=False).hexdigest()
        for cert in (middle.certificate, ROOT.certificate)
    ]
    assert [str(each) for each in attested.selectors] == [
        "x509pop:subject:cn:node-1",
        *(f"x509pop:ca:fingerprint:{each}" for each in fingerprints),
        "x509pop:serialnumber:0abc",
        "x509pop:san:role:web/front",
    ]


@pytest.mark.parametrize(
    "uri", ["x509pop://other.org/role/web", "x509pop://example.org/role", "https://example.org/a/b"]
)
async def test_other_uris_are_no_selectors(uri: str) -> None:
    key, chain = chain_of(ROOT, uri=uri)
    assert not [each for each in (await attest(chain, Agent(key))).selectors if ":san:" in str(each)]


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521"])
async def test_a_certificate_signed_with_ecdsa_has_two_forms_that_know_of_each_other(kind: str) -> None:
    """Nobody needs a key to write the second one: were it another node's, a ban of the first would keep nobody out."""
    issuer = TestCa("nodes.test", kind, now=START, spiffe_id=None)
    key, (leaf,) = chain_of(issuer)
    other = pop_twin.twin_of(leaf, issuer.certificate)
    assert other is not None
    twin = x509.load_der_x509_certificate(other)
    assert (twin.tbs_certificate_bytes, twin == leaf) == (leaf.tbs_certificate_bytes, False)
    attestor = X509PopAttestor(OURS, [issuer.certificate])
    one, two = [
        await attestor.attest(Evidence(payload_of((each,)), b"k" * 32, START), Agent(key)) for each in (leaf, twin)
    ]
    assert one.agent_id != two.agent_id
    assert (one.twins, two.twins) == ((two.agent_id,), (one.agent_id,))
    assert one.selectors == two.selectors


async def test_a_certificate_signed_with_rsa_has_one_form() -> None:
    issuer = TestCa("nodes.test", "rsa-2048", now=START, spiffe_id=None)
    key, chain = chain_of(issuer)
    attestor = X509PopAttestor(OURS, [issuer.certificate])
    assert (await attestor.attest(Evidence(payload_of(chain), b"k" * 32, START), Agent(key))).twins == ()


@pytest.mark.parametrize("kind", ["P-256", "rsa-2048"])
def test_no_bit_of_a_certificate_can_be_changed(kind: str) -> None:
    """What its issuer signed is protected; the rest is not, and an agent is named after all of it."""
    issuer = TestCa("nodes.test", kind, now=START, spiffe_id=None)
    leaf = next(leaf for _, (leaf,) in iter(lambda: chain_of(issuer), None) if leaf.signature[-1] % 128 == 0)
    der, signed = leaf.public_bytes(Encoding.DER), leaf.tbs_certificate_bytes
    signed_from = der.index(signed)
    unsigned = [*range(signed_from), *range(signed_from + len(signed), len(der))]
    accepted = []
    for place in unsigned:
        for bit in range(8):
            changed = der[:place] + bytes([der[place] ^ 1 << bit]) + der[place + 1 :]
            with contextlib.suppress(MalformedEvidence, AttestationRefused):
                pop_chain.verify_chain(pop_chain.read_chain([changed], ChainLimits()), [issuer.certificate], START)
                accepted.append((place - len(der), bit))
    assert not accepted


@pytest.mark.parametrize("name", ["a302 0500", "a502 0500"])
@pytest.mark.parametrize("place", ["leaf", "intermediate"])
async def test_a_name_of_a_kind_that_nobody_uses_is_malformed_and_no_fault_of_ours(name: str, place: str) -> None:
    """x400Address and ediPartyName of RFC 5280 4.2.1.6, which the parser of certificates does not know."""
    san = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex(f"3004 {name}"))
    _, (strange,) = chain_of(ROOT, extra=[(san, False)])
    _, (sound,) = chain_of(ROOT)
    chain = (strange,) if place == "leaf" else (sound, strange)
    with pytest.raises(MalformedEvidence, match=f"unable to parse {place} certificate"):
        await attest(chain, never)


async def never(_challenge: bytes) -> bytes:
    raise AssertionError("an agent with such evidence is not even challenged")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "failed to unmarshal data"),
        (b"\xff", "failed to unmarshal data"),
        (b"[]", "failed to unmarshal data"),
        (b'{"certificates": "AA=="}', "failed to unmarshal data"),
        (b'{"certificates": ["***"]}', "failed to unmarshal data"),
        (b'{"certificates": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "failed to unmarshal data"),
        (b'{"certificates": ["' + b"A" * 70_000 + b'"]}', "failed to unmarshal data: more than 65536 bytes"),
        (b"{}", "no certificate to attest"),
        (b'{"certificates": []}', "no certificate to attest"),
        (b'{"certificates": ["AA=="]}', "unable to parse leaf certificate"),
    ],
)
async def test_evidence_that_cannot_be_read_is_malformed(payload: bytes, why: str) -> None:
    with pytest.raises(MalformedEvidence, match=why):
        await X509PopAttestor(OURS, [ROOT.certificate]).attest(Evidence(payload, b"k" * 32, START), never)


async def test_four_intermediates_are_allowed_and_five_refused_unread() -> None:
    """That six pieces of garbage are "too many" and not "unreadable" shows which is looked at first."""
    ca = ROOT
    for number in range(4):
        ca = ca.intermediate(name=f"Rung {number}", spiffe_id=None)
    key, four = chain_of(ca)
    assert await attest(four, Agent(key))
    _, five = chain_of(ca.intermediate(name="One more", spiffe_id=None))
    for payload in (payload_of(five), json.dumps({"certificates": ["AA=="] * 6}).encode()):
        with pytest.raises(MalformedEvidence, match="too many intermediate certificates"):
            await X509PopAttestor(OURS, [ROOT.certificate]).attest(Evidence(payload, b"k" * 32, START), never)


def with_huge_key(issuer: TestCa, bits: int = 16384) -> x509.Certificate:
    """A certificate over an RSA modulus that nobody factored: reading it is all that is ever done with it."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << bits) - 159)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "huge")]))
        .issuer_name(issuer.certificate.subject)
        .public_key(numbers.public_key())
        .serial_number(1)
        .not_valid_before(START - HOUR)
        .not_valid_after(START + HOUR)
        .add_extension(x509.BasicConstraints(True, None), True)
    )
    return builder.sign(issuer.key, hashes.SHA256())


async def test_as_many_intermediates_verify_as_are_configured() -> None:
    ca = ROOT
    for number in range(12):
        ca = ca.intermediate(name=f"Rung {number}", spiffe_id=None)
    key, chain = chain_of(ca)
    attestor = X509PopAttestor(OURS, [ROOT.certificate], ChainLimits(max_intermediates=12))
    attested = await attestor.attest(Evidence(payload_of(chain), b"k" * 32, START), Agent(key))
    assert sum(selector.value.startswith("ca:fingerprint:") for selector in attested.selectors) == 13


@pytest.mark.parametrize("place", ["leaf", "intermediate"])
async def test_an_rsa_16384_key_is_refused_before_any_signature_is_checked(place: str) -> None:
    """No authority of ours signed these: were a signature looked at first, that would be the complaint."""
    stranger = TestCa("nodes.test", now=START, spiffe_id=None)
    _, sound = chain_of(stranger)
    huge = with_huge_key(stranger)
    chain = (huge,) if place == "leaf" else (sound[0], huge)
    with pytest.raises(MalformedEvidence, match=f"{place} certificate.* key size too large"):
        await attest(chain, never)


async def test_an_rsa_exponent_that_makes_verifying_slow_is_refused_before_any_signature_is_checked() -> None:
    """By an authority that is not ours, as above."""
    _, slow = chain_of(TestCa("nodes.test", now=START, spiffe_id=None), key=new_key("rsa-slow"))
    with pytest.raises(MalformedEvidence, match="leaf certificate public exponent too large"):
        await attest(slow, never)


async def test_names_and_name_constraints_cannot_be_multiplied_without_end() -> None:
    subtrees = [x509.DNSName(f"{n}.test") for n in range(101)]
    stranger = TestCa("nodes.test", now=START, spiffe_id=None)
    constrained = stranger.intermediate(spiffe_id=None, extra=[(x509.NameConstraints(None, subtrees), True)])
    _, chain = chain_of(constrained, uri="x509pop://example.org/a/b", dns_names=[f"{n}.example" for n in range(99)])
    with pytest.raises(MalformedEvidence, match="unable to verify the certificates: 100 names under 101"):
        await attest(chain, never)


async def test_a_certificate_whose_subject_is_no_text_is_refused_as_one_that_cannot_be_parsed() -> None:
    _, (leaf, *_) = chain_of(ROOT)
    broken = x509.load_der_x509_certificate(unreadable_name(leaf))
    with pytest.raises(MalformedEvidence, match="unable to parse leaf certificate"):
        await attest((broken,), never)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("another authority", "certificate verification failed"),
        ("expired", "certificate verification failed"),
        ("not yet valid", "certificate verification failed"),
        ("issued by a leaf", "certificate verification failed"),
        ("issued by a CA that may not sign certificates", "certificate verification failed"),
        ("without the intermediate", "certificate verification failed"),
        ("may not sign", "certificate not intended for digital signature use"),
        ("no key usage", "certificate not intended for digital signature use"),
        ("ed25519", "unsupported public key type"),
    ],
)
async def test_a_chain_that_proves_nothing_is_refused_without_a_challenge(case: str, why: str) -> None:
    at, issuer, twists = START, ROOT, {}
    match case:
        case "another authority":
            issuer = TestCa("nodes.test", now=START, name="Node root", spiffe_id=None)
        case "expired":
            at = START + timedelta(hours=2)
        case "not yet valid":
            at = START - timedelta(hours=2)
        case "issued by a leaf":
            issuer = ROOT.intermediate(name="No CA", ca=False, spiffe_id=None)
        case "issued by a CA that may not sign certificates":
            issuer = ROOT.intermediate(name="Signs no certificates", key_usage=SIGNS, spiffe_id=None)
        case "without the intermediate":
            issuer = ROOT.intermediate(name="Left out", spiffe_id=None)
        case "may not sign":
            twists = {"key_usage": usage(key_agreement=True)}
        case "no key usage":
            twists = {"key_usage": None}
        case "ed25519":
            twists = {"key": new_key("ed25519")}
    _, chain = chain_of(issuer, **twists)
    chain = chain[:1] if case == "without the intermediate" else chain
    with pytest.raises(AttestationRefused, match=why):
        await attest(chain, never, at=at)


async def test_an_authority_that_is_itself_issued_by_another_is_an_anchor_all_the_same() -> None:
    site = ROOT.intermediate(name="Site", spiffe_id=None)
    key, chain = chain_of(site)
    attestor = X509PopAttestor(OURS, [site.certificate])
    assert await attestor.attest(Evidence(payload_of(chain[:1]), b"k" * 32, START), Agent(key))


@pytest.mark.parametrize("uses", [None, [x509.ObjectIdentifier("1.3.6.1.5.5.7.3.9")]])
async def test_extended_key_usages_do_not_matter(uses: Any) -> None:
    key, chain = chain_of(ROOT, extended_uses=uses)
    assert await attest(chain, Agent(key))


@pytest.mark.parametrize("kind", ["P-256", "rsa-2048"])
async def test_another_key_proves_nothing(kind: str) -> None:
    _, chain = chain_of(ROOT, key=new_key(kind))
    with pytest.raises(AttestationRefused, match=r"challenge response verification failed: .* signature verify failed"):
        await attest(chain, Agent(new_key(kind, nth=1)))


@pytest.mark.parametrize(
    ("kind", "spoil", "why"),
    [
        ("P-256", {"nonce": b"short"}, "invalid response nonce"),
        ("P-256", {"nonce": b"b" * 32}, "ECDSA signature verify failed"),
        ("P-256", {"r": b"", "s": b""}, "ECDSA signature verify failed"),
        ("P-256", {"r": b"\xff" * 4096}, "ECDSA signature verify failed"),
        ("rsa-2048", {"nonce": b""}, "invalid response nonce"),
        ("rsa-2048", {"signature": b""}, "RSA signature verify failed"),
        ("rsa-2048", {"signature": b"x" * 256}, "RSA signature verify failed"),
    ],
)
async def test_a_spoilt_proof_is_refused(kind: str, spoil: dict[str, bytes], why: str) -> None:
    key, chain = chain_of(ROOT, key=new_key(kind))
    with pytest.raises(AttestationRefused, match=why):
        await attest(chain, Agent(key, spoil))


@pytest.mark.parametrize(
    ("kind", "answer", "error", "why"),
    [
        ("P-256", b"", MalformedEvidence, "unable to unmarshal challenge response"),
        ("P-256", b"{" * 9000, MalformedEvidence, "unable to unmarshal challenge response"),
        ("P-256", b"{}", AttestationRefused, "expecting ECDSA response"),
        ("P-256", b'{"rsa_signature": {"nonce": "", "signature": ""}}', AttestationRefused, "expecting ECDSA response"),
        ("rsa-2048", b"{}", AttestationRefused, "expecting RSA response"),
        ("rsa-2048", b'{"ecdsa_signature": {"r": "", "s": ""}}', AttestationRefused, "expecting RSA response"),
    ],
)
async def test_an_answer_that_is_no_proof_is_refused(
    kind: str, answer: bytes, error: type[Exception], why: str
) -> None:
    async def agent(_challenge: bytes) -> bytes:
        return answer

    _, chain = chain_of(ROOT, key=new_key(kind))
    with pytest.raises(error, match=why):
        await attest(chain, agent)
