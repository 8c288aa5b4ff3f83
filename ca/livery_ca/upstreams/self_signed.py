"""The upstream that is no upstream: each CA signs itself and is its own root.

Owns: the self-signed CA certificate, in SPIRE's form (C=US, O=SPIFFE, serialNumber; URI SAN of the trust domain). Does
not own: the key, which stays in the key store.

The certificate goes the way of every other: draft, lint, sign, and the result is held against the draft.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from livery_ca.certificates import algorithm, assemble, profile
from livery_ca.certificates.assemble import SigningParty, ThrowAwayKeys
from livery_ca.certificates.draft import Draft
from livery_ca.certificates.lint import lint_ca
from livery_ca.certificates.profile import BACKDATE, CaPlan
from livery_ca.keys import KeyStore
from livery_ca.upstreams.upstream import CaRequest, MintedCa, UpstreamError


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """An `Upstream` that lets the key certify itself."""

    keys: KeyStore

    def mint(self, request: CaRequest) -> MintedCa:
        """1. plan  2. draft and lint  3. sign  4. check what came out."""
        plan = _plan(request)  # 1
        issuer = SigningParty.self_signed(plan)
        draft = Draft.of(assemble.draft_ca(plan, issuer, ThrowAwayKeys()), plan, issuer, None)  # 2
        lint_ca(draft)
        (signature,) = self.keys.sign(request.key_id, [draft.tbs])  # 3
        certificate = x509.load_der_x509_certificate(assemble.join(draft.tbs, issuer, signature))
        _check(certificate, draft, signature)  # 4
        return MintedCa((certificate,), (certificate,))


def _plan(request: CaRequest) -> CaPlan:
    serial = profile.new_serial()
    start = request.at.replace(microsecond=0)  # RFC 5280 4.1.2.5: whole seconds
    return CaPlan(
        serial=serial,
        trust_domain=request.trust_domain,
        public_key=request.public_key,
        subject=profile.ca_subject(serial),
        not_before=start - BACKDATE,
        not_after=start + timedelta(seconds=int(request.ttl.total_seconds())),
    )


def _check(certificate: x509.Certificate, draft: Draft[CaPlan], signature: bytes) -> None:
    try:
        algorithm.check_signature(draft.plan.public_key, signature, certificate.tbs_certificate_bytes)
    except InvalidSignature as cause:
        why = "its signature does not verify with its own key"
        fix = "look at the key store; nothing was published"
        raise UpstreamError("the new CA certificate is not sound", why=why, fix=fix) from cause
    if certificate.tbs_certificate_bytes != draft.tbs:
        raise UpstreamError("the new CA certificate is not sound", why="it is not the one that was linted")
