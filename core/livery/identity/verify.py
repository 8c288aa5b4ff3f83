"""Verification: the only place that turns an SVID somebody sent into an identity to act on.

Owns: `verify_x509`, `verify_jwt` and the two types that prove they ran. Does not own: taking a chain from a connection
(`livery.runtime.transport.peer`), or what the identity may do (policy).

Invariants: `Verified…` values are made here and nowhere else. An SVID is held against the bundle of the trust domain
that its own ID names, and no other: the authority of one domain can never vouch for an ID of another. The time is an
argument. A failure is an error of this package, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

from livery.identity import certificates
from livery.identity.authorities import JwtKey
from livery.identity.bundle import BundleMap, TrustBundle
from livery.identity.certificates import Unreadable
from livery.identity.errors import (
    ExpiredJwtSvid,
    ExpiredX509Svid,
    InvalidX509Svid,
    PrematureJwtSvid,
    PrematureX509Svid,
    UntrustedJwtSvid,
    UntrustedX509Svid,
    WrongAudience,
)
from livery.identity.jwt_svid import JwtSvid
from livery.identity.spiffe_id import SpiffeId
from livery.identity.x509_svid import MAX_CHAIN, check_bounds, leaf_id

NO_LEEWAY = timedelta(0)

_CURVE_OF = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}  # RFC 7518 3.4


@dataclass(frozen=True, slots=True)
class VerifiedX509Svid:
    """An X509-SVID whose trust domain vouches for it, from `not_before` to `not_after`.

    The two are the narrowest window on the path from leaf to authority, so nothing that hangs on this value may outlive
    `not_after`. `chain` is as it was presented, to be verified again when bundles change.
    """

    id: SpiffeId
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    not_before: datetime
    not_after: datetime
    serial: int
    authority: x509.Certificate = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifiedJwtSvid:
    """A JWT-SVID whose trust domain vouches for it, made for us, and not past its end."""

    id: SpiffeId
    audience: tuple[str, ...]
    expires_at: datetime
    claims: Mapping[str, Any] = field(repr=False, hash=False)
    key_id: str


def verify_x509(chain: Sequence[x509.Certificate], bundles: BundleMap, at: datetime) -> VerifiedX509Svid:
    """Verify a chain, leaf first, as of `at` (aware).

    1. The chain is within bounds.                                  (before any cryptography)
    2. The leaf keeps every leaf rule and names one SPIFFE ID.      X509-SVID 2, 4.3, 5.2
    3. The bundle is that of the ID's own trust domain.             Trust Domain and Bundle 3
    4. What was presented does not cost too much to verify.         RSA sizes, curves, names under name constraints
    5. The leaf is within its validity.                             for an error that says which clock to look at
    6. A path leads from the leaf to an authority of that bundle.   RFC 5280 6
    7. Every issuer on it is within its validity.                   to the fraction of a second, which 6 drops
    """
    check_bounds(chain)  # 1
    spiffe_id = leaf_id(chain[0])  # 2
    bundle = bundles.get(spiffe_id.trust_domain)  # 3
    if bundle is None or not bundle.x509_authorities:
        raise UntrustedX509Svid(f"{spiffe_id} is not trusted", why=f"no X.509 authority of {spiffe_id.trust_domain}")
    _check_cost(chain)  # 4
    _check_window(spiffe_id, chain[0], at)  # 5
    path = _path(spiffe_id, chain, bundle, at)  # 6
    for issuer in path[1:]:  # 7
        _check_window(spiffe_id, issuer, at)
    return VerifiedX509Svid(
        id=spiffe_id,
        chain=tuple(chain),
        not_before=max(c.not_valid_before_utc for c in path),
        not_after=min(c.not_valid_after_utc for c in path),
        serial=chain[0].serial_number,
        authority=path[-1],
    )


def verify_jwt(
    token: str,
    bundles: BundleMap,
    audience: str | Collection[str],
    at: datetime,
    leeway: timedelta = NO_LEEWAY,
) -> VerifiedJwtSvid:
    """Verify a token as of `at` (aware), made for `audience` (ours; of several, any one).

    1. The token has the shape of a JWT-SVID, its algorithm included.     JWT-SVID 2, 3, 5.1
    2. The key is the one it names, of its own trust domain's JWT keys.   JWT-SVID 4, 6.2
    3. That key is of the type its algorithm wants and signed it.         RFC 7518 3
    4. It is within its validity.                                         JWT-SVID 3.3; RFC 7519 4.1.4, 4.1.5
    5. It names us.                                                       JWT-SVID 3.2
    """
    svid = JwtSvid.parse_unverified(token)  # 1
    key = _jwt_key(svid, bundles, at - leeway)  # 2
    _check_signature(svid, key)  # 3
    _check_times(svid, at, leeway)  # 4
    _check_audience(svid, audience)  # 5
    return VerifiedJwtSvid(svid.id, svid.audience, svid.expires_at, svid.claims, key.key_id)


def _check_cost(chain: Sequence[x509.Certificate]) -> None:
    """Bound what the path validator would compute before it finds that nobody we trust signed any of this."""
    try:
        faults = [*map(_issuer_key_fault, chain[1:]), certificates.names_fault(chain)]
    except Unreadable as e:
        raise InvalidX509Svid("not an X509-SVID", why=f"an issuer: {e}") from e
    if fault := next(filter(None, faults), ""):
        raise InvalidX509Svid("not an X509-SVID", why=f"an issuer: {fault}")


def _issuer_key_fault(cert: x509.Certificate) -> str:
    return certificates.key_fault(certificates.public_key(cert), max_rsa_bits=certificates.MAX_AUTHORITY_RSA_BITS)


def _check_window(spiffe_id: SpiffeId, cert: x509.Certificate, at: datetime) -> None:
    if at < cert.not_valid_before_utc:
        begins = cert.not_valid_before_utc.isoformat()
        raise PrematureX509Svid(f"{spiffe_id} is not trusted", why=f"it is valid from {begins}", fix="set the clock")
    if at > cert.not_valid_after_utc:
        ended = cert.not_valid_after_utc.isoformat()
        raise ExpiredX509Svid(f"{spiffe_id} is not trusted", why=f"it was valid until {ended}", fix="renew it")


def _path(
    spiffe_id: SpiffeId, chain: Sequence[x509.Certificate], bundle: TrustBundle, at: datetime
) -> Sequence[x509.Certificate]:
    # A store per trust domain, always new: with two domains in one, the authority of either would vouch for both.
    store = Store([a.certificate for a in bundle.x509_authorities])
    # Not the server verifier, which demands a DNS name or an IP address.
    verifier = (
        PolicyBuilder()
        .store(store)
        .time(at.astimezone(UTC).replace(tzinfo=None))
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        return verifier.verify(chain[0], list(chain[1:])).chain
    except (verification.VerificationError, ValueError, TypeError) as e:
        why = f"no authority of {spiffe_id.trust_domain} vouches for it: {str(e)[:300]}"
        raise UntrustedX509Svid(f"{spiffe_id} is not trusted", why=why) from e


def _jwt_key(svid: JwtSvid, bundles: BundleMap, at: datetime) -> JwtKey:
    bundle = bundles.get(svid.id.trust_domain)
    if bundle is None or not bundle.jwt_authorities:
        raise UntrustedJwtSvid(f"{svid.id} is not trusted", why=f"no JWT authority of {svid.id.trust_domain}")
    key = bundle.jwt_key(svid.key_id)
    if key is None:
        raise UntrustedJwtSvid(f"{svid.id} is not trusted", why="its key is not in its trust domain's bundle")
    if key.expires_at is not None and at >= key.expires_at:
        raise ExpiredJwtSvid(f"{svid.id} is not trusted", why="the key that signed it has ended")
    return key


def _check_signature(svid: JwtSvid, key: JwtKey) -> None:
    public_key = key.public_key
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        fits = _CURVE_OF.get(svid.algorithm) == public_key.curve.name
    else:
        fits = svid.algorithm.startswith(("RS", "PS"))
    if not fits:
        raise UntrustedJwtSvid(f"{svid.id} is not trusted", why="its alg does not go with the key it names")
    try:
        jwt.PyJWS().decode(svid.token, public_key, algorithms=[svid.algorithm])
    except jwt.PyJWTError as e:
        raise UntrustedJwtSvid(f"{svid.id} is not trusted", why="its signature is not by the key it names") from e


def _check_times(svid: JwtSvid, at: datetime, leeway: timedelta) -> None:
    if at - leeway >= svid.expires_at:
        ended = svid.expires_at.isoformat()
        raise ExpiredJwtSvid(f"{svid.id} is not trusted", why=f"it was valid until {ended}", fix="fetch a new one")
    if svid.not_before is not None and at + leeway < svid.not_before:
        begins = svid.not_before.isoformat()
        raise PrematureJwtSvid(f"{svid.id} is not trusted", why=f"it is valid from {begins}", fix="set the clock")


def _check_audience(svid: JwtSvid, audience: str | Collection[str]) -> None:
    ours = {audience} if isinstance(audience, str) else set(audience)
    if ours.isdisjoint(svid.audience):
        raise WrongAudience(f"{svid.id} is not trusted", why="the token is for somebody else")


def _signs_certificates(_policy: object, _cert: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer may not sign certificates")


# Leaf rules were applied before. Of the web's further rules none is SPIFFE's: no AKI, no extended key usage demanded.
_LEAF_POLICY = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
_CA_POLICY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)  # present, and cA is then always demanded
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
)
