"""The JSON that x509pop speaks: attestation data, challenge, response.

Owns: these forms byte for byte as SPIRE's agent writes and reads them, and the bounds on what is read. Does not own:
what the certificates or signatures are worth (`pop_chain`, `x509pop`).

Invariant: whatever the bytes, reading raises `MalformedEvidence` and nothing else, before any cryptography.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from livery_ca.attest.attestor import MalformedEvidence

NONCE_BYTES = 32
# Five certificates with RSA-8192 keys and signatures take 15 KiB in base64; templates and policies may double that.
MAX_DATA_BYTES = 64 * 1024
MAX_RESPONSE_BYTES = 8 * 1024

Form = TypeVar("Form")


class AttestationData(msgspec.Struct):
    """A chain in DER, leaf first. `bytes` are base64 in JSON."""

    certificates: list[bytes] = []


class Nonce(msgspec.Struct):
    """What the challenger sends."""

    nonce: bytes


class Challenge(msgspec.Struct):
    """One of the two by the type of the leaf's key; the other is null and is written all the same."""

    rsa_signature: Nonce | None = None
    ecdsa_signature: Nonce | None = None


class RsaProof(msgspec.Struct):
    """RSA-PSS over both nonces."""

    nonce: bytes = b""
    signature: bytes = b""


class EcdsaProof(msgspec.Struct):
    """ECDSA over both nonces; r and s as big-endian bytes."""

    nonce: bytes = b""
    r: bytes = b""
    s: bytes = b""


class Response(msgspec.Struct):
    """The proof that goes with the challenge."""

    rsa_signature: RsaProof | None = None
    ecdsa_signature: EcdsaProof | None = None


def read_data(payload: bytes, *, max_intermediates: int) -> list[bytes]:
    """The certificates of the attestation data, counted before any of them is looked into."""
    chain = _decode(payload, AttestationData, MAX_DATA_BYTES, "failed to unmarshal data").certificates
    if not chain:
        raise MalformedEvidence("no certificate to attest")
    if len(chain) - 1 > max_intermediates:
        raise MalformedEvidence("too many intermediate certificates")
    return chain


def read_response(payload: bytes) -> Response:
    """The agent's answer to the challenge."""
    return _decode(payload, Response, MAX_RESPONSE_BYTES, "unable to unmarshal challenge response")


def write_challenge(challenge: Challenge) -> bytes:
    """The challenge as JSON."""
    return msgspec.json.encode(challenge)


def _decode(payload: bytes, form: type[Form], limit: int, what: str) -> Form:
    if len(payload) > limit:
        raise MalformedEvidence(what, why=f"more than {limit} bytes")
    try:
        return msgspec.json.decode(payload, type=form)
    except (msgspec.MsgspecError, RecursionError, ValueError) as cause:
        raise MalformedEvidence(what, why=str(cause)[:200]) from cause
