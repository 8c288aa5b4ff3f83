"""Node attestation by proof of possession of an X.509 certificate's key.

Owns: the challenge, the check of the proof, the agent's SPIFFE ID. Does not own: the forms on the wire (`pop_forms`),
the chain (`pop_chain`), the agent's half.

Invariants: the challenge is sent only after the chain verified, and its nonce is used once; the proof covers the nonces
of both sides, so neither side chooses alone what is signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from livery.identity import SpiffeId, TrustDomain
from livery_ca.attest import pop_chain, pop_forms
from livery_ca.attest.attestor import AttestationRefused, Attested, Challenge, Evidence
from livery_ca.attest.pop_chain import ChainLimits, LeafKey
from livery_ca.attest.pop_forms import NONCE_BYTES, Nonce, Response

_DIGEST = Prehashed(hashes.SHA256())
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.AUTO)
_MAX_SCALAR_BYTES = 66  # P-521


class X509PopAttestor:
    """Admits agents that hold the key of a certificate from one of the configured authorities."""

    type = "x509pop"

    def __init__(
        self, trust_domain: TrustDomain, authorities: Sequence[x509.Certificate], limits: ChainLimits | None = None
    ) -> None:
        self._trust_domain = trust_domain
        self._authorities = tuple(authorities)
        self._limits = limits or ChainLimits()

    async def attest(self, evidence: Evidence, challenge: Challenge) -> Attested:
        """The agent named after its certificate.

        1. Bounds: size of the data, number of certificates, sizes of their keys.     cheap, before any signature
        2. The chain leads to a configured authority.
        3. The agent signs our nonce and its own.
        """
        ders = pop_forms.read_data(evidence.payload, max_intermediates=self._limits.max_intermediates)  # 1
        chain = pop_chain.read_chain(ders, self._limits)
        node = await asyncio.to_thread(pop_chain.verify_chain, chain, self._authorities, evidence.at)  # 2
        selectors = pop_chain.selectors_of(node, self._trust_domain)
        nonce = secrets.token_bytes(NONCE_BYTES)  # 3
        answer = await challenge(pop_forms.write_challenge(_challenge(node.key, nonce)))
        check_proof(node.key, nonce, pop_forms.read_response(answer))
        twins = tuple(self._agent(twin) for twin in (node.twin,) if twin is not None)
        return Attested(self._agent(node.fingerprint), selectors, can_reattest=True, twins=twins)

    def _agent(self, fingerprint: str) -> SpiffeId:
        return SpiffeId.of(self._trust_domain, f"/spire/agent/x509pop/{fingerprint}")


def check_proof(key: LeafKey, nonce: bytes, response: Response) -> None:
    """Raise `AttestationRefused` unless the response is a signature by `key` over `nonce` and the response's own."""
    try:
        match key:
            case rsa.RSAPublicKey():
                proof = response.rsa_signature
                if proof is None:
                    raise _refused("expecting RSA response")
                key.verify(proof.signature, _combined(nonce, proof.nonce), _PSS, _DIGEST)
            case ec.EllipticCurvePublicKey():
                pair = response.ecdsa_signature
                if pair is None:
                    raise _refused("expecting ECDSA response")
                key.verify(_dss(pair.r, pair.s), _combined(nonce, pair.nonce), ec.ECDSA(_DIGEST))
    except InvalidSignature as cause:
        name = "RSA" if isinstance(key, rsa.RSAPublicKey) else "ECDSA"
        raise _refused(f"{name} signature verify failed") from cause


def _challenge(key: LeafKey, nonce: bytes) -> pop_forms.Challenge:
    if isinstance(key, rsa.RSAPublicKey):
        return pop_forms.Challenge(rsa_signature=Nonce(nonce))
    return pop_forms.Challenge(ecdsa_signature=Nonce(nonce))


def _combined(ours: bytes, theirs: bytes) -> bytes:
    """The digest that is signed. Both nonces have one length, so their concatenation splits in one way only."""
    if len(theirs) != NONCE_BYTES:
        raise _refused("invalid response nonce")
    return hashlib.sha256(ours + theirs).digest()


def _dss(r: bytes, s: bytes) -> bytes:
    if max(len(r), len(s)) > _MAX_SCALAR_BYTES:
        raise _refused("ECDSA signature verify failed")
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


def _refused(why: str) -> AttestationRefused:
    return AttestationRefused("challenge response verification failed", why=why)
