"""JWT-SVIDs: a signed token which names one SPIFFE ID and whom it is for (JWT-SVID).

Owns: `JwtSvid` and the rules of a token's shape: serialisation, header, claims and their types.
Does not own: the signature, the time and the audience (`verify.verify_jwt`), or making one (the CA).

Invariants: a `JwtSvid` has kept every rule that needs no key and no clock. The token itself is a bearer secret and
appears in no `repr` and no error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Self

from livery.identity import base64url, strict_json
from livery.identity.errors import InvalidJwtSvid, InvalidSpiffeId
from livery.identity.spiffe_id import SpiffeId

MAX_TOKEN_BYTES = 64 * 1024
ALGORITHMS = frozenset(f"{family}{bits}" for family in ("RS", "ES", "PS") for bits in (256, 384, 512))  # JWT-SVID 2.1
_HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})
_TYPES = frozenset({"JWT", "JOSE"})  # JWT-SVID 2.3
_PART = re.compile(r"[A-Za-z0-9_-]+")
_LAST_MOMENT = 253402300799  # 9999-12-31T23:59:59Z, the last that has a date


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A token of the right shape; nothing here says that anybody signed it."""

    id: SpiffeId
    audience: tuple[str, ...]
    expires_at: datetime
    issued_at: datetime | None
    claims: Mapping[str, Any] = field(repr=False, hash=False)
    token: str = field(repr=False)
    hint: str = ""
    not_before: datetime | None = None
    algorithm: str = ""
    key_id: str = ""

    @classmethod
    def parse_unverified(cls, token: str, hint: str = "") -> Self:
        """Read a token's shape. The signature, the time and the audience are NOT looked at: `verify_jwt` does that."""
        parts = _split(token)
        algorithm, key_id = _read_header(_object(parts[0], "header"))
        claims = _object(parts[1], "payload")
        expires_at = _moment(claims, "exp")
        if expires_at is None:
            raise _refusal("it has no exp: such a token would be valid for ever")
        return cls(
            id=_subject(claims),
            audience=_audience(claims),
            expires_at=expires_at,
            issued_at=_moment(claims, "iat"),
            claims=MappingProxyType(claims),
            token=token,
            hint=hint,
            not_before=_moment(claims, "nbf"),
            algorithm=algorithm,
            key_id=key_id,
        )


def _split(token: str) -> list[str]:
    """The three parts of the compact serialisation (JWT-SVID 5.1; RFC 7515 7.1), each in canonical base64url."""
    if len(token) > MAX_TOKEN_BYTES:
        raise _refusal(f"it is longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(".", 3)
    if len(parts) != 3 or not all(_PART.fullmatch(p) for p in parts):
        raise _refusal("it is not a JWS in compact serialisation")
    _decode(parts[2])
    return parts


def _object(part: str, name: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(_decode(part), max_bytes=MAX_TOKEN_BYTES)
    except strict_json.NotJson as e:
        raise _refusal(f"its {name} is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise _refusal(f"its {name} is no JSON object")
    return value


def _decode(part: str) -> bytes:
    try:
        return base64url.decode(part)
    except ValueError as e:
        raise _refusal("it is not canonical base64url") from e


def _read_header(header: dict[str, Any]) -> tuple[str, str]:
    """The algorithm and key ID of a header that holds what JWT-SVID 2 allows and nothing else."""
    if strange := sorted(header.keys() - _HEADER_MEMBERS):  # jku, x5u, jwk, crit: ways to bring one's own key
        raise _refusal(f"its header holds {strange[0][:50]!a}, and only alg, kid and typ are allowed")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _refusal("its alg is not one that JWT-SVID allows")
    if "typ" in header and (not isinstance(header["typ"], str) or header["typ"] not in _TYPES):
        raise _refusal("its typ is neither JWT nor JOSE")
    if not isinstance(key_id, str) or not key_id:
        raise _refusal("it has no kid")
    return algorithm, key_id


def _subject(claims: dict[str, Any]) -> SpiffeId:
    sub = claims.get("sub")
    if not isinstance(sub, str):
        raise _refusal("it has no sub")
    try:
        spiffe_id = SpiffeId.parse(sub)
    except InvalidSpiffeId as e:
        raise _refusal(f"its sub: {e}") from e
    if spiffe_id.is_root:
        raise _refusal(f"its sub {spiffe_id} names an authority, not a workload")
    return spiffe_id


def _audience(claims: dict[str, Any]) -> tuple[str, ...]:
    """At least one value; a string or an array of strings (JWT-SVID 3.2; RFC 7519 4.1.3)."""
    aud = claims.get("aud")
    values = [aud] if isinstance(aud, str) else aud
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise _refusal("its aud names nobody")
    return tuple(values)


def _moment(claims: dict[str, Any], name: str) -> datetime | None:
    """A NumericDate (RFC 7519 2): a JSON number and not a text that looks like one."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(f"its {name} is no number")
    if not 0 <= value <= _LAST_MOMENT:
        raise _refusal(f"its {name} is no date")
    return datetime.fromtimestamp(value, UTC)


def _refusal(why: str) -> InvalidJwtSvid:
    return InvalidJwtSvid("not a JWT-SVID", why=why)
