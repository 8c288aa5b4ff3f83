"""Which signature algorithm goes with which key: one each, so that a key alone says how it signs.

Owns: `KeyType`, the table of algorithms (hash, AlgorithmIdentifier, JOSE name), checking a signature. Does not own:
private keys (`keys`).

Invariant: the AlgorithmIdentifier depends on the hash and the family, not on the curve (RFC 5758 3.2), so a throw-away
P-256 key makes the same TBSCertificate as any EC authority with that hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from livery.errors import Kind, LiveryError

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512


class KeyType(StrEnum):
    """The types of key an authority may have, by SPIRE's names."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_4096 = "rsa-4096"


class UnsuitableKey(LiveryError):
    """No algorithm of ours goes with this key."""

    code = "unsuitable_key"
    kind = Kind.INVALID


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How keys of one type sign. `identifier` is the DER of the X.509 AlgorithmIdentifier, `jose` the JWS `alg`."""

    hash: Hash
    identifier: bytes
    jose: str


# RFC 5758 3.2 (ecdsa-with-SHA2: no parameters), RFC 4055 5 (RSA PKCS #1 v1.5: NULL parameters), RFC 7518 3.1.
_ECDSA = bytes.fromhex("300a06082a8648ce3d0403")
_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
_P256 = Algorithm(hashes.SHA256(), _ECDSA + b"\x02", "ES256")
_P384 = Algorithm(hashes.SHA384(), _ECDSA + b"\x03", "ES384")
_P521 = Algorithm(hashes.SHA512(), _ECDSA + b"\x04", "ES512")
_RSA = Algorithm(hashes.SHA256(), _RSA_SHA256, "RS256")


def algorithm_of(key: PublicKey) -> Algorithm:
    """The algorithm that goes with this key. Raises `UnsuitableKey`."""
    match key:
        case rsa.RSAPublicKey():
            return _RSA
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return _P256
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return _P384
        case ec.EllipticCurvePublicKey(curve=ec.SECP521R1()):
            return _P521
    raise UnsuitableKey("the key cannot sign", why="it is neither RSA nor EC on P-256, P-384 or P-521")


def sign(key: PrivateKey, data: bytes) -> bytes:
    """A signature as X.509 carries it: PKCS #1 v1.5, or the DER of r and s."""
    algorithm = algorithm_of(key.public_key())
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), algorithm.hash)
    return key.sign(data, ec.ECDSA(algorithm.hash))


def check_signature(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Raise `cryptography.exceptions.InvalidSignature` unless this key signed this data."""
    algorithm = algorithm_of(key)
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, data, padding.PKCS1v15(), algorithm.hash)
    else:
        key.verify(signature, data, ec.ECDSA(algorithm.hash))


def generate(key_type: KeyType) -> PrivateKey:
    """A new private key of this type."""
    match key_type:
        case KeyType.EC_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.EC_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyType.RSA_2048:
            return rsa.generate_private_key(65537, 2048)
        case KeyType.RSA_4096:
            return rsa.generate_private_key(65537, 4096)
