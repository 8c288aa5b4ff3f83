"""What can be wrong with an identity: one leaf per thing a caller would do differently.

Owns: the errors of `livery.identity`; its parsers and verifiers raise these and nothing else.
Does not own: status codes (`livery.runtime.problems`) and what a door says to a stranger.

`Invalid…` means the bytes or the text can never be right, at any time and under any bundle. `Untrusted…` means they are
well formed, but this bundle, this moment or this audience does not accept them.
"""

from __future__ import annotations

from livery.errors import Kind, LiveryError


class IdentityError(LiveryError):
    """The root of everything this package raises."""

    code = "identity"
    kind = Kind.INVALID


class InvalidTrustDomain(IdentityError):
    """The text is not the name of a trust domain."""

    code = "invalid_trust_domain"


class InvalidSpiffeId(IdentityError):
    """The text is not a SPIFFE ID."""

    code = "invalid_spiffe_id"


class InvalidSelector(IdentityError):
    """The text is not a selector."""

    code = "invalid_selector"


class InvalidBundle(IdentityError):
    """The document is not a bundle, or holds something a bundle must not hold."""

    code = "invalid_bundle"


class InvalidX509Svid(IdentityError):
    """The certificates (or their key) are no X509-SVID, whatever the bundle."""

    code = "invalid_x509_svid"


class UntrustedX509Svid(IdentityError):
    """A well-formed X509-SVID which the bundle of its own trust domain does not vouch for."""

    code = "untrusted_x509_svid"
    kind = Kind.UNAUTHENTICATED


class ExpiredX509Svid(UntrustedX509Svid):
    """A certificate of the chain is past its end: renew, or look at the clock."""

    code = "expired_x509_svid"


class PrematureX509Svid(UntrustedX509Svid):
    """A certificate of the chain is not valid yet: one of the two clocks is wrong."""

    code = "premature_x509_svid"


class InvalidJwtSvid(IdentityError):
    """The token is no JWT-SVID, whatever the bundle."""

    code = "invalid_jwt_svid"


class UntrustedJwtSvid(IdentityError):
    """A well-formed JWT-SVID which the bundle of its own trust domain does not vouch for."""

    code = "untrusted_jwt_svid"
    kind = Kind.UNAUTHENTICATED


class ExpiredJwtSvid(UntrustedJwtSvid):
    """The token is past its end: fetch a new one, or look at the clock."""

    code = "expired_jwt_svid"


class PrematureJwtSvid(UntrustedJwtSvid):
    """The token is not valid yet: one of the two clocks is wrong."""

    code = "premature_jwt_svid"


class WrongAudience(UntrustedJwtSvid):
    """The token was made for somebody else."""

    code = "wrong_audience"
