"""VERIFY: what came back is held against what was meant, by eyes that did not make it.

Owns: `Verified`, the only thing that can be recorded as issued. Does not own: the validator (`livery.identity`).

1. The final bytes hold the journalled TBS, byte for byte.
2. The validator that every workload uses accepts the chain, under our own published bundle, now.
3. It names whom it should.
4. The signature is by the authority that was meant to sign, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from livery.identity import IdentityError, VerifiedX509Svid, verify_x509
from livery_ca.certificates import algorithm
from livery_ca.issuance.errors import NotSound
from livery_ca.issuance.sign import Failure, Signed
from livery_ca.model import Outcome


@dataclass(frozen=True, slots=True)
class Verified:
    """A certificate that is what was journalled, and that our trust domain vouches for."""

    signed: Signed
    svid: VerifiedX509Svid


def verify(signed: Signed) -> Verified | Failure:
    """Verify one certificate; one that fails is withheld."""
    try:
        return Verified(signed, _check(signed))
    except (IdentityError, NotSound) as cause:
        return _withhold(signed, str(cause), cause)
    except Exception as cause:  # noqa: BLE001 - InvalidSignature, ValueError; whatever it is, its group is not to suffer
        return _withhold(signed, "it is no certificate signed by its authority", cause)


def _check(signed: Signed) -> VerifiedX509Svid:
    linted = signed.journalled.linted
    authority = linted.moment.authority
    certificate = x509.load_der_x509_certificate(signed.der)
    if certificate.tbs_certificate_bytes != linted.tbs:  # 1
        raise NotSound("the TBS changed on the way")
    chain = (certificate, *authority.intermediates)
    svid = verify_x509(chain, linted.moment.bundles, linted.moment.now)  # 2
    if svid.id != linted.plan.spiffe_id:  # 3
        raise NotSound("it names somebody else")
    # 4. Where our authority is the anchor of a path without intermediates, step 2 checked this very signature.
    if authority.intermediates or svid.authority != authority.signer.certificate:
        algorithm.check_signature(authority.party.public_key, signed.signature, linted.tbs)
    return svid


def _withhold(signed: Signed, why: str, cause: Exception) -> Failure:
    fix = "look at the key store and the bundle; the certificate was not handed out"
    error = NotSound("a signed certificate did not verify and was withheld", why=why, fix=fix)
    error.__cause__ = cause
    return Failure(signed.journalled, Outcome.WITHHELD, error, signed.signature)
