"""The vocabulary: SPIFFE IDs, SVIDs, trust bundles, and verification.

Owns: the value types every other package speaks in, and the only code that decides whether an SVID is true.
Does not own: I/O, clocks, keys at rest, or policy; everything here is a function of its arguments.

Invariants: a value of one of these types is valid, or it would not exist. `VerifiedX509Svid` and `VerifiedJwtSvid` are
made by `verify_x509` and `verify_jwt` alone. Every failure is an `IdentityError`.
"""

from __future__ import annotations

from livery.identity.authorities import JwtKey, X509Authority
from livery.identity.bundle import BundleMap, TrustBundle
from livery.identity.errors import (
    ExpiredJwtSvid,
    ExpiredX509Svid,
    IdentityError,
    InvalidBundle,
    InvalidJwtSvid,
    InvalidSelector,
    InvalidSpiffeId,
    InvalidTrustDomain,
    InvalidX509Svid,
    PrematureJwtSvid,
    PrematureX509Svid,
    UntrustedJwtSvid,
    UntrustedX509Svid,
    WrongAudience,
)
from livery.identity.jwt_svid import JwtSvid
from livery.identity.selector import Selector
from livery.identity.spiffe_id import SpiffeId
from livery.identity.trust_domain import TrustDomain
from livery.identity.verify import VerifiedJwtSvid, VerifiedX509Svid, verify_jwt, verify_x509
from livery.identity.x509_svid import PrivateKey, X509Svid, leaf_id, parse_chain

__all__ = [
    "BundleMap",
    "ExpiredJwtSvid",
    "ExpiredX509Svid",
    "IdentityError",
    "InvalidBundle",
    "InvalidJwtSvid",
    "InvalidSelector",
    "InvalidSpiffeId",
    "InvalidTrustDomain",
    "InvalidX509Svid",
    "JwtKey",
    "JwtSvid",
    "PrematureJwtSvid",
    "PrematureX509Svid",
    "PrivateKey",
    "Selector",
    "SpiffeId",
    "TrustBundle",
    "TrustDomain",
    "UntrustedJwtSvid",
    "UntrustedX509Svid",
    "VerifiedJwtSvid",
    "VerifiedX509Svid",
    "WrongAudience",
    "X509Authority",
    "X509Svid",
    "leaf_id",
    "parse_chain",
    "verify_jwt",
    "verify_x509",
]
