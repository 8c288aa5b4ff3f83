"""Issuing JWT-SVIDs: claims, a signature by the active JWT authority, a check, a record, then the token.

Owns: the claims and header of our tokens (JWT-SVID 2, 3), and their order of issuing. Does not own: who may ask.

A token is recorded after it is signed and before it is handed out, and has no place in the issuance log. A certificate
is journalled first because its signature may exist elsewhere (a remote key store) when we crash, and must then be
denied by its serial. A token is good to whoever holds it, for minutes, and nothing denies it by number: one that died
with us was never anybody's. What must not happen is one that was handed out and is not on record; so the record is
durable first. The token itself is not kept, only its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.utils import der_to_raw_signature

from livery.identity import BundleMap, IdentityError, VerifiedJwtSvid, verify_jwt
from livery_ca.certificates import algorithm
from livery_ca.certificates.algorithm import KeyType, PrivateKey
from livery_ca.certificates.profile import MIN_LIFETIME
from livery_ca.issuance.errors import AuthorityEnding, NotSound, RequestRefused
from livery_ca.issuance.pipeline import IssuerParts
from livery_ca.issuance.request import IssuedJwt, JwtRequest
from livery_ca.keys import KeyStore
from livery_ca.model import JwtRecord, JwtSigner

MAX_AUDIENCE = 64  # values; a token that is for everybody is for nobody
MAX_AUDIENCE_BYTES = 2048


class JwtIssuer:
    """Issues JWT-SVIDs. `issuer` is the `iss` claim, for OIDC relying parties; without it there is none."""

    def __init__(self, parts: IssuerParts, issuer: str | None = None) -> None:
        self._parts = parts
        self._issuer = issuer
        self._drafting = _Drafting()
        self._count = parts.metrics.counter("ca_tokens", "JWT-SVIDs issued.")

    async def issue(self, request: JwtRequest) -> IssuedJwt:
        """1. claims  2. sign  3. verify  4. record  5. hand out.

        Raises `RequestRefused`, `AuthorityEnding`, `ClockBehind`, `NotSound`, or the errors of key store and store.
        """
        parts = self._parts
        signer, bundles, now = parts.signers.jwt_signer(), parts.signers.bundles(), parts.guard.now()
        claims = claims_of(request, signer, now, self._issuer)  # 1
        drafted = await parts.workers.compute(lambda each: self._drafting.draft(each, signer), [claims])
        (token,) = await parts.workers.sign(
            lambda some: [_sign(each, signer, parts.keys) for each in some], drafted
        )  # 2
        await parts.workers.compute(lambda each: _check(each, request, bundles, now), [token])  # 3
        issued = IssuedJwt(token, request.spiffe_id, _moment(claims["iat"], now), _moment(claims["exp"], now))
        await parts.journal.record_jwt(_record(request, signer, issued))  # 4
        self._count.inc()
        return issued  # 5


def claims_of(request: JwtRequest, signer: JwtSigner, now: datetime, issuer: str | None) -> dict[str, Any]:
    """The claims: sub, aud (always an array), iat, exp; iss and jti where asked for. No nbf, as SPIRE has none."""
    _check_request(request)
    start = now.replace(microsecond=0)
    end = min(start + timedelta(seconds=int(request.ttl.total_seconds())), signer.not_after.replace(microsecond=0))
    if end - start < MIN_LIFETIME:
        why = f"it ends at {signer.not_after.isoformat()}"
        raise AuthorityEnding(
            "the active JWT authority cannot sign now", why=why, fix="look at why it has no successor"
        )
    claims: dict[str, Any] = {
        "sub": str(request.spiffe_id),
        "aud": list(request.audience),
        "iat": int(start.timestamp()),
        "exp": int(end.timestamp()),
    }
    if issuer is not None:
        claims["iss"] = issuer
    if request.jti:
        claims["jti"] = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode("ascii")
    return claims


def _check_request(request: JwtRequest) -> None:
    fault = ""
    if request.spiffe_id.is_root:
        fault = "the SPIFFE ID has no path"
    elif not request.audience or not all(request.audience):
        fault = "there is no audience, or an empty one"  # JWT-SVID 3.2
    elif len(request.audience) > MAX_AUDIENCE or any(len(a.encode()) > MAX_AUDIENCE_BYTES for a in request.audience):
        fault = f"there are more than {MAX_AUDIENCE} audiences, or one is longer than {MAX_AUDIENCE_BYTES} bytes"
    elif request.ttl < MIN_LIFETIME:
        fault = f"a lifetime of {request.ttl.total_seconds():g} s is too short"
    if fault:
        raise RequestRefused("the token is refused", why=fault)


class _Drafting:
    """Drafts of tokens: PyJWT encodes them with a throw-away key, and the same bytes are then signed for good.

    So PyJWT needs no private key of ours, which may be where no library reaches. Used on one thread.
    """

    def __init__(self) -> None:
        self._keys: dict[str, PrivateKey] = {}

    def draft(self, claims: dict[str, Any], signer: JwtSigner) -> str:
        """The signing input: header and claims. PyJWT adds alg and typ=JWT; JWT-SVID 2 allows only kid beside."""
        key = self._keys.get(signer.algorithm) or self._keys.setdefault(signer.algorithm, _key_for(signer.algorithm))
        payload = json.dumps(claims, separators=(",", ":")).encode()
        token = jwt.PyJWS().encode(payload, key, signer.algorithm, {"kid": signer.authority_id})
        return token.rpartition(".")[0]


def _key_for(jose: str) -> PrivateKey:
    fitting = {"ES256": KeyType.EC_P256, "ES384": KeyType.EC_P384, "RS256": KeyType.RSA_2048}
    return algorithm.generate(fitting[jose])


def _sign(draft: str, signer: JwtSigner, keys: KeyStore) -> str:
    """The token, by the authority's key. Runs on the key store's thread."""
    (signature,) = keys.sign(signer.key_id, [draft.encode("ascii")])
    public_key = keys.public_key(signer.key_id)
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        signature = der_to_raw_signature(signature, public_key.curve)  # RFC 7518 3.4: r and s, not DER
    return f"{draft}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode('ascii')}"


def _check(token: str, request: JwtRequest, bundles: BundleMap, now: datetime) -> VerifiedJwtSvid:
    """The validator that every workload uses accepts it, and it names whom it should."""
    try:
        verified = verify_jwt(token, bundles, request.audience[0], now)
    except IdentityError as cause:
        fix = "look at the key store and the bundle; the token was not handed out"
        raise NotSound("a signed token did not verify and was withheld", why=str(cause), fix=fix) from cause
    if verified.id != request.spiffe_id or verified.audience != request.audience:
        raise NotSound("a signed token did not verify and was withheld", why="it says something else than was asked")
    return verified


def _record(request: JwtRequest, signer: JwtSigner, issued: IssuedJwt) -> JwtRecord:
    return JwtRecord(
        token_hash=hashlib.sha256(issued.token.encode("ascii")).digest(),
        spiffe_id=request.spiffe_id,
        audience=request.audience,
        authority_id=signer.authority_id,
        asked_by=request.asked_by,
        issued_at=issued.issued_at,
        expires_at=issued.expires_at,
        entry_id=request.entry_id,
        authorized_by=request.authorized_by,
    )


def _moment(seconds: int, now: datetime) -> datetime:
    return datetime.fromtimestamp(seconds, now.tzinfo)
