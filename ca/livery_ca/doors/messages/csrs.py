"""CSRs of requests: what each RPC says about a bad one, and what minting takes from a good one.

Owns: SPIRE's words per RPC, and the rules on the names an administrator asks for. Does not own: reading a CSR
(`certificates.csr`), which already refuses a key that would cost too much before it verifies anything.

Invariants: an agent's CSR gives a key and nothing else. A CSR is read in a worker thread: the check of its signature is
CPU work that a stranger can ask for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from livery.identity import SpiffeId, TrustDomain
from livery_ca.certificates.csr import CertificateRequest, CsrError, CsrSignatureInvalid, read_csr
from livery_ca.certificates.profile import PublicKey
from livery_ca.doors.messages import ids
from livery_ca.doors.refusals import InvalidArgument, malformed
from livery_ca.entries import validation


@dataclass(frozen=True, slots=True)
class Words:
    """What an RPC says of a CSR that cannot be used, and of one that its key did not sign."""

    unreadable: str
    unsigned: str


# SPIRE does not check an agent's signature, so it has no words of its own for that; minting's fit.
AGENT = Words("failed to parse CSR", "failed to verify CSR signature")
WORKLOAD = Words("malformed CSR", "invalid CSR signature")
MINTED = Words("malformed CSR", "failed to verify CSR signature")


@dataclass(frozen=True, slots=True)
class Minted:
    """What an administrator asks to be minted. Without a subject in the CSR, it gets the one that every SVID has."""

    spiffe_id: SpiffeId
    public_key: PublicKey
    dns_names: tuple[str, ...]
    subject: x509.Name | None


async def read_key(der: bytes, words: Words) -> PublicKey:
    """The key of a CSR whose sender holds it."""
    return (await asyncio.to_thread(_read, der, words)).public_key


async def read_keys(ders: Sequence[bytes], words: Words) -> list[PublicKey | InvalidArgument]:
    """The key of each CSR, or why there is none. One thread at a time, a few CSRs each, so that the loop breathes."""
    found: list[PublicKey | InvalidArgument] = []
    for start in range(0, len(ders), 16):
        found += await asyncio.to_thread(_read_group, ders[start : start + 16], words)
    return found


async def read_minted(der: bytes, ours: TrustDomain) -> Minted:
    """Everything a minting CSR asks for, checked."""
    request = await asyncio.to_thread(_read, der, MINTED)
    match request.uris:
        case ():
            raise InvalidArgument("CSR URI SAN is required")
        case (uri,):
            pass
        case _:
            raise InvalidArgument("only one URI SAN is expected")
    with malformed("CSR URI SAN is invalid"):
        spiffe_id = SpiffeId.parse(uri)
        ids.check_workload(spiffe_id, ours)
    with malformed("CSR DNS name is invalid"):
        for name in request.dns_names:
            validation.check_dns_name(name)
    with malformed("CSR DNS name contains a wildcard that covers another non-wildcard name"):
        validation.check_wildcards(request.dns_names)
    dns_names = tuple(dict.fromkeys(request.dns_names))
    return Minted(spiffe_id, request.public_key, dns_names, request.subject if request.subject.rdns else None)


def _read(der: bytes, words: Words) -> CertificateRequest:
    try:
        return read_csr(der)
    except CsrSignatureInvalid as cause:
        raise InvalidArgument(words.unsigned, why=cause.why) from cause
    except CsrError as cause:
        raise InvalidArgument(words.unreadable, why=cause.why or cause.what) from cause


def _read_group(ders: Sequence[bytes], words: Words) -> list[PublicKey | InvalidArgument]:
    found: list[PublicKey | InvalidArgument] = []
    for der in ders:
        try:
            found.append(_read(der, words).public_key)
        except InvalidArgument as refusal:
            found.append(refusal)
    return found


def key_hash(key: PublicKey) -> bytes:
    """SHA-256 of the key as its SubjectPublicKeyInfo."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
