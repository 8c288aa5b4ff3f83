"""Public keys as JWK members (RFC 7518 6, RFC 8037 2): both ways, for the key types a bundle may hold.

Owns: `members` and `read_key`. Does not own: `use`, `kid` and `x5c`, which are the bundle's affair.

Invariant: `read_key` gives a key, or None for a kind of key we do not know (RFC 7517 5: ignore it), or raises
`BadKey`; nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from livery.identity import base64url

AuthorityKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_NAMES = {curve().name: name for name, curve in _CURVES.items()}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_MAX_NUMBER = 4096  # characters of one number: RSA-16384 has 2731


class BadKey(Exception):
    """The JWK contradicts its own type. Never leaves this package."""


def members(key: AuthorityKey) -> dict[str, str]:
    """The JWK members of a public key: `kty` and its parameters."""
    match key:
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            return {"kty": "RSA", "n": _from_int(numbers.n), "e": _from_int(numbers.e)}
        case ec.EllipticCurvePublicKey():
            width, point = (key.curve.key_size + 7) // 8, key.public_numbers()
            name = _NAMES[key.curve.name]
            return {"kty": "EC", "crv": name, "x": _from_int(point.x, width), "y": _from_int(point.y, width)}
        case _:
            raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
            return {"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(raw)}


def read_key(jwk: Mapping[str, Any]) -> AuthorityKey | None:
    """The public key of a JWK, or None when its type or curve is none that we know."""
    try:
        key = _known_key(jwk)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise BadKey(f"its key cannot be read: {str(e)[:200]}") from e
    if key is not None and _PRIVATE_MEMBERS & jwk.keys():  # of another type these may be anything
        raise BadKey("it holds a private key")
    return key


def _known_key(jwk: Mapping[str, Any]) -> AuthorityKey | None:
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", _:
            return rsa.RSAPublicNumbers(_int(jwk, "e"), _int(jwk, "n")).public_key()
        case "EC", str(name) if name in _CURVES:
            curve = _CURVES[name]()
            return ec.EllipticCurvePublicNumbers(_int(jwk, "x"), _int(jwk, "y"), curve).public_key()
        case "OKP", "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(_bytes(jwk, "x"))
        case _:
            return None


def _int(jwk: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(_bytes(jwk, name), "big")


def _bytes(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NUMBER:
        raise BadKey(f"its {name} is missing or too long")
    try:
        return base64url.decode(value)
    except ValueError as e:
        raise BadKey(f"its {name} is not base64url") from e


def _from_int(number: int, width: int = 0) -> str:
    return base64url.encode(number.to_bytes(width or (number.bit_length() + 7) // 8, "big"))
