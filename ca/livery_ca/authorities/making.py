"""Making an authority: its key, and for X.509 its certificate from the upstream.

Owns: what a new authority is made of, and the checks on what an upstream returned. Does not own: when (`states`) or
what is written down around it (`keeper`). Everything here may block: it runs in a worker thread.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from livery.identity import JwtKey, SpiffeId, TrustDomain, X509Authority
from livery_ca.certificates.algorithm import KeyType
from livery_ca.keys import KeyStore
from livery_ca.model import Authority, AuthorityKind, AuthorityState
from livery_ca.upstreams import CaRequest, MintedCa, Upstream, UpstreamError

_KID_LENGTH = 32  # random alphanumerics, as SPIRE names its JWT keys
_KID_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """What authorities are like in this trust domain. `ca_ttl` is the life of CA certificates and JWT keys."""

    trust_domain: TrustDomain
    ca_ttl: timedelta = timedelta(hours=24)
    ca_key_type: KeyType = KeyType.EC_P256
    jwt_key_type: KeyType = KeyType.EC_P256
    refresh_hint: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes authorities as the settings say, with keys from this store and certificates from this upstream."""

    settings: AuthoritySettings
    keys: KeyStore
    upstream: Upstream

    def make(self, kind: AuthorityKind, key_id: str, at: datetime) -> Authority:
        """A new authority, prepared, with a new key of this name."""
        return self._jwt(key_id, at) if kind is AuthorityKind.JWT else self._x509(key_id, at)

    def _jwt(self, key_id: str, at: datetime) -> Authority:
        public_key = self.keys.generate(key_id, self.settings.jwt_key_type)
        kid = "".join(secrets.choice(_KID_LETTERS) for _ in range(_KID_LENGTH))
        end = at + self.settings.ca_ttl
        return Authority(
            id=kid,
            kind=AuthorityKind.JWT,
            state=AuthorityState.PREPARED,
            key_id=key_id,
            issued_at=at,
            not_before=at,
            not_after=end,
            jwt_key=JwtKey(kid, public_key, end),
            changed_at=at,
        )

    def _x509(self, key_id: str, at: datetime) -> Authority:
        public_key = self.keys.generate(key_id, self.settings.ca_key_type)
        request = CaRequest(self.settings.trust_domain, key_id, public_key, self.settings.ca_ttl, at)
        minted = self.upstream.mint(request)
        _check(request, minted)
        certificate = minted.chain[0]
        return Authority(
            id=X509Authority(certificate).subject_key_id,
            kind=AuthorityKind.X509,
            state=AuthorityState.PREPARED,
            key_id=key_id,
            issued_at=at,
            not_before=certificate.not_valid_before_utc,
            # No leaf may outlive any certificate above it that is handed out with it.
            not_after=min(c.not_valid_after_utc for c in (*minted.chain, *minted.roots)),
            chain=minted.chain,
            roots=minted.roots,
            changed_at=at,
        )


def _check(request: CaRequest, minted: MintedCa) -> None:
    """What an upstream returns is for our key, is ours by name, is valid now, and comes with a root."""
    certificate = minted.chain[0]
    if certificate.public_key() != request.public_key:
        fault = "it is not for our key"
    elif not certificate.not_valid_before_utc <= request.at < certificate.not_valid_after_utc:
        fault = "it is not valid now"
    elif _uris(certificate) not in ([], [str(SpiffeId(request.trust_domain))]):  # X509-SVID 3.2
        fault = "it names another trust domain"
    elif not minted.roots:
        fault = "it came without a root"
    else:
        return
    fix = "look at the upstream's configuration; nothing was published"
    raise UpstreamError("the upstream's CA certificate is refused", why=fault, fix=fix)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return san.get_values_for_type(x509.UniformResourceIdentifier)
