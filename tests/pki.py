"""A small real PKI for tests: authorities, intermediates and SVIDs, made by `cryptography`, good ones and twisted ones.

`TestCa("example.org").issue("/a")` gives a sound `X509Svid`. `issue_chain("/a", Twist(...))` gives certificates that
break exactly the rule named; nothing about them is checked on the way out.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from livery.identity import JwtKey, SpiffeId, TrustBundle, TrustDomain, X509Authority, X509Svid

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
BACKDATE = timedelta(seconds=10)

AnyPrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1(), "secp256k1": ec.SECP256K1()}
_RSA: dict[tuple[int, int], rsa.RSAPrivateKey] = {}  # slow to make, and every test may share them


def new_key(kind: str = "P-256", *, nth: int = 0) -> Any:
    """A private key: P-256, P-384, P-521, secp256k1, ed25519, rsa-<bits> or rsa-slow.

    RSA keys are shared, and `nth` tells them apart; above 4096 bits a key can be certified and cannot sign, and neither
    can rsa-slow, of 3072 bits and a public exponent just above 31.
    """
    if kind == "rsa-slow":
        return CertifiableKey(3072, (1 << 31) + 1)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    size = (int(kind.removeprefix("rsa-")), nth)
    if size[0] > 4096:
        return CertifiableKey(size[0])
    if size not in _RSA:
        _RSA[size] = rsa.generate_private_key(65537, size[0])
    return _RSA[size]


@dataclass(frozen=True)
class CertifiableKey:
    """The public half of an RSA key whose primes nobody looked for, since for some it would take minutes."""

    bits: int
    exponent: int = 65537

    def public_key(self) -> rsa.RSAPublicKey:
        """An odd modulus of that many bits."""
        return rsa.RSAPublicNumbers(self.exponent, (1 << (self.bits - 1)) | 1).public_key()


def digest_for(key: Any) -> Any:
    """The hash that goes with a signing key."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {384: hashes.SHA384(), 521: hashes.SHA512()}.get(key.curve.key_size, hashes.SHA256())
    return hashes.SHA256()


def usage(**set_bits: bool) -> x509.KeyUsage:
    """A key usage with these bits and no others."""
    bits = dict.fromkeys(
        [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    return x509.KeyUsage(**{**bits, **set_bits})


LEAF_USAGE = usage(digital_signature=True, key_encipherment=True, key_agreement=True)
CA_USAGE = usage(key_cert_sign=True, crl_sign=True)
BOTH_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Twist:
    """How a leaf departs from a sound one. The defaults are a sound leaf."""

    uris: Sequence[str] | None = None  # None: the one URI of the path asked for
    dns_names: Sequence[str] = ()
    other_names: Sequence[x509.GeneralName] = ()
    san: bool = True
    san_critical: bool | None = None  # None: critical exactly when the subject is empty
    ca: bool | None = False  # None: no basicConstraints
    key_usage: x509.KeyUsage | None = LEAF_USAGE
    key_usage_critical: bool = True
    extended_uses: Sequence[x509.ObjectIdentifier] | None = BOTH_USES
    aki: bool = True
    subject: str = ""
    key: Any = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    serial: int | None = None
    extra: Sequence[tuple[x509.ExtensionType, bool]] = field(default=())


SOUND = Twist()


class TestCa:
    """An authority of a trust domain, with the keys to sign X509-SVIDs and JWT-SVIDs."""

    __test__ = False  # pytest: the name is the PKI's, not a test's

    def __init__(
        self,
        trust_domain: str | TrustDomain = "example.org",
        kind: str = "P-256",
        *,
        name: str = "",
        now: datetime = NOW,
        ttl: timedelta = 24 * HOUR,
        issuer: TestCa | None = None,
        spiffe_id: str | None = "",
        path_length: int | None = None,
        ca: bool = True,
        key_usage: x509.KeyUsage | None = CA_USAGE,
        ski: bool = True,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        jwt_kind: str = "P-256",
        key: Any = None,
        jwt_key: Any = None,
    ) -> None:
        self.trust_domain = TrustDomain(trust_domain) if isinstance(trust_domain, str) else trust_domain
        self.now = now
        self.issuer = issuer
        self.key = key or new_key(kind)
        self.jwt_key = jwt_key or new_key(jwt_kind)
        self.key_id = f"jwt-{x509.random_serial_number():x}"[:20]
        self.name = name or f"{self.trust_domain} CA {x509.random_serial_number():x}"[:60]
        uri = f"spiffe://{self.trust_domain}" if spiffe_id == "" else spiffe_id
        signer, signer_name = (issuer.key, issuer.certificate.subject) if issuer else (self.key, self.subject)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(signer_name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + ttl)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        )
        if key_usage is not None:
            builder = builder.add_extension(key_usage, critical=True)
        if ski:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
        if issuer is not None:
            builder = builder.add_extension(_aki(issuer), critical=False)
        if uri:
            builder = builder.add_extension(x509.SubjectAlternativeName([_uri(uri)]), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        self.certificate = builder.sign(signer, digest_for(signer))

    @property
    def subject(self) -> x509.Name:
        """This authority's distinguished name."""
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])

    def intermediate(self, **options: Any) -> TestCa:
        """A subordinate authority of the same trust domain, signed by this one."""
        return TestCa(options.pop("trust_domain", self.trust_domain), now=self.now, issuer=self, **options)

    def above(self) -> tuple[x509.Certificate, ...]:
        """The intermediates a leaf of this authority is sent with: this one upwards, without the root."""
        found, ca = [], self
        while ca.issuer is not None:
            found.append(ca.certificate)
            ca = ca.issuer
        return tuple(found)

    @property
    def root(self) -> TestCa:
        """The authority at the top."""
        return self if self.issuer is None else self.issuer.root

    def bundle(self, **changes: Any) -> TrustBundle:
        """The trust bundle: the root's certificate and this authority's JWT key."""
        bundle = TrustBundle(
            trust_domain=self.trust_domain,
            x509_authorities=(X509Authority(self.root.certificate),),
            jwt_authorities=(self.jwt_authority(),),
        )
        return replace(bundle, **changes)

    def jwt_authority(self) -> JwtKey:
        """This authority's JWT key as a bundle holds it."""
        return JwtKey(self.key_id, self.jwt_key.public_key())

    def issue(self, path: str = "/workload", ttl: timedelta = HOUR, *, hint: str = "", **twists: Any) -> X509Svid:
        """A sound X509-SVID; `twists` are `Twist`'s fields that leave it sound (DNS names, key, times, subject)."""
        twist = self._with_ttl(Twist(**twists), ttl)
        key = twist.key or new_key()
        chain = self.issue_chain(path, replace(twist, key=key))
        return X509Svid(SpiffeId.of(self.trust_domain, path), chain, key, hint)

    def issue_chain(self, path: str = "/workload", twist: Twist = SOUND) -> tuple[x509.Certificate, ...]:
        """A leaf as twisted as you like, and the intermediates above it."""
        return (self.sign_leaf(f"spiffe://{self.trust_domain}{path}", twist), *self.above())

    def sign_leaf(self, uri: str, twist: Twist = SOUND) -> x509.Certificate:
        """One leaf certificate."""
        twist = self._with_ttl(twist, HOUR)
        key = twist.key or new_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(twist))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(twist.serial or x509.random_serial_number())
            .not_valid_before(twist.not_before or self.now - BACKDATE)
            .not_valid_after(twist.not_after or self.now + HOUR)
        )
        for extension, critical in self._leaf_extensions(uri, twist):
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, digest_for(self.key))

    def jwt_svid(self, path: str = "/workload", audience: Any = "them", ttl: timedelta = HOUR, **claims: Any) -> str:
        """A sound token; `claims` replace or add claims, and None takes one away."""
        return self.sign_jwt(self.claims(path, audience, ttl, **claims))

    def claims(self, path: str = "/workload", audience: Any = "them", ttl: timedelta = HOUR, **claims: Any) -> Any:
        """The claims of a sound token, with these replaced, added or (None) taken away."""
        sound = {
            "sub": f"spiffe://{self.trust_domain}{path}",
            "aud": audience,
            "exp": int((self.now + ttl).timestamp()),
            "iat": int(self.now.timestamp()),
        }
        return {name: value for name, value in {**sound, **claims}.items() if value is not None}

    def sign_jwt(self, claims: Any, *, algorithm: str = "", key: Any = None, header: Any = None) -> str:
        """Sign any claims with any header; `header` members replace or add, and None takes one away."""
        key = key or self.jwt_key
        algorithm = algorithm or algorithm_for(key)
        members = {"alg": algorithm, "kid": self.key_id, "typ": "JWT", **(header or {})}
        return sign_jws({n: v for n, v in members.items() if v is not None}, json.dumps(claims), key, algorithm)

    def _leaf_extensions(self, uri: str, twist: Twist) -> list[tuple[x509.ExtensionType, bool]]:
        found: list[tuple[x509.ExtensionType, bool]] = []
        if twist.san:
            uris = [uri] if twist.uris is None else twist.uris
            names = [*map(_uri, uris), *map(x509.DNSName, twist.dns_names), *twist.other_names]
            critical = not twist.subject if twist.san_critical is None else twist.san_critical
            found.append((x509.SubjectAlternativeName(names), critical))
        if twist.ca is not None:
            found.append((x509.BasicConstraints(ca=twist.ca, path_length=None), True))
        if twist.key_usage is not None:
            found.append((twist.key_usage, twist.key_usage_critical))
        if twist.extended_uses is not None:
            found.append((x509.ExtendedKeyUsage(twist.extended_uses), False))
        if twist.aki:
            found.append((_aki(self), False))
        return [*found, *twist.extra]

    def _with_ttl(self, twist: Twist, ttl: timedelta) -> Twist:
        return replace(
            twist,
            not_before=twist.not_before or self.now - BACKDATE,
            not_after=twist.not_after or self.now + ttl,
        )


def algorithm_for(key: Any) -> str:
    """The JOSE algorithm a key signs with."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "EdDSA"
    return {256: "ES256", 384: "ES384", 521: "ES512"}[key.curve.key_size]


def sign_jws(header: Any, payload: str | bytes, key: Any, algorithm: str) -> str:
    """A JWS in compact serialisation with exactly this header and payload, however wrong."""
    text = header if isinstance(header, str) else json.dumps(header)
    body = payload.encode() if isinstance(payload, str) else payload
    signed = f"{base64url(text.encode())}.{base64url(body)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key)
    return f"{signed}.{base64url(signature)}"


def base64url(data: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unreadable_san() -> x509.UnrecognizedExtension:
    """A subject alternative name whose text is not ASCII: the certificate loads, and fails when it is looked into."""
    return x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x86\x01\xff")


def unreadable_name(certificate: x509.Certificate) -> bytes:
    """A certificate as DER whose subject (and issuer, if it is the same) says it is UTF-8 and is not."""
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(common_name.value).encode()
    return certificate.public_bytes(Encoding.DER).replace(name, b"\xff" * len(name))


def year_zero(certificate: x509.Certificate, moment: datetime) -> bytes:
    """A certificate as DER whose beginning or end, which was `moment`, is in the year 0; 2050 or later (RFC 5280)."""
    text = f"{moment:%Y%m%d%H%M%SZ}".encode()
    return certificate.public_bytes(Encoding.DER).replace(text, b"0000" + text[4:])


def unknown_curve(certificate: x509.Certificate) -> bytes:
    """A certificate as DER whose P-256 key says it is on a curve that nobody knows."""
    p256, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    return certificate.public_bytes(Encoding.DER).replace(p256, unknown)


class FederatedPair:
    """Two trust domains that know each other, for tests of who may vouch for whom."""

    def __init__(self, ours: str = "example.org", theirs: str = "partner.test") -> None:
        self.ours = TestCa(ours)
        self.theirs = TestCa(theirs)

    def forge(self, path: str = "/workload") -> tuple[x509.Certificate, ...]:
        """A chain signed by *their* authority that names an ID of *ours*."""
        return (self.theirs.sign_leaf(f"spiffe://{self.ours.trust_domain}{path}"), *self.theirs.above())

    @classmethod
    def default(cls) -> Self:
        """example.org and partner.test."""
        return cls()


def _uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def _subject(twist: Twist) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, twist.subject)] if twist.subject else [])


def _aki(issuer: TestCa) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
