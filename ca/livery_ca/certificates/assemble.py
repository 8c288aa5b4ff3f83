"""From a plan to bytes: a draft signed by a throw-away key, and later the same bytes under the real signature.

Owns: building the TBSCertificate (with `cryptography`), and joining it with a signature. Does not own: what is in a
plan (`profile`), whether the result is right (`lint`), the authority's key (`keys`).

The draft exists to be linted: it is a whole certificate, but its signature is by a key nobody keeps. What it says is,
byte for byte, what will be signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from livery.identity import SpiffeId
from livery_ca.certificates import algorithm, encoding, profile
from livery_ca.certificates.algorithm import Algorithm, PublicKey
from livery_ca.certificates.profile import CaPlan, LeafPlan


@dataclass(frozen=True, slots=True)
class SigningParty:
    """The issuer's half of a certificate. `key_identifier` is None where the certificate is its own issuer."""

    name: x509.Name
    public_key: PublicKey
    key_identifier: x509.AuthorityKeyIdentifier | None
    algorithm: Algorithm = field(init=False)
    name_der: bytes = field(init=False)

    def __post_init__(self) -> None:
        # Read once, for all that this party signs.
        object.__setattr__(self, "algorithm", algorithm.algorithm_of(self.public_key))
        object.__setattr__(self, "name_der", self.name.public_bytes())

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """The party that this CA certificate names."""
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        reference = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        return cls(certificate.subject, key, reference)

    @classmethod
    def self_signed(cls, plan: CaPlan) -> Self:
        """The party of a CA that signs itself: no authority key identifier (RFC 5280 4.2.1.1)."""
        return cls(plan.subject, plan.public_key, None)


class ThrowAwayKeys:
    """Keys for drafts, one per family, made when this object is and known to nobody else."""

    def __init__(self) -> None:
        self._ec = ec.generate_private_key(ec.SECP256R1())
        self._rsa: rsa.RSAPrivateKey | None = None

    def like(self, key: PublicKey) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
        """A key whose signatures have the same AlgorithmIdentifier as those of `key`."""
        if isinstance(key, ec.EllipticCurvePublicKey):
            return self._ec
        if self._rsa is None:
            self._rsa = rsa.generate_private_key(65537, 2048)
        return self._rsa


def draft_leaf(plan: LeafPlan, issuer: SigningParty, keys: ThrowAwayKeys) -> x509.Certificate:
    """The leaf as planned, under a throw-away signature. Raises ValueError where the plan cannot be encoded."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(plan.spiffe_id))]
    names += [x509.DNSName(name) for name in plan.dns_names]
    return _draft(plan, issuer, keys, [*_LEAF_EXTENSIONS, *_own_extensions(plan, issuer, names)])


def draft_ca(plan: CaPlan, issuer: SigningParty, keys: ThrowAwayKeys) -> x509.Certificate:
    """The CA certificate as planned, under a throw-away signature."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(SpiffeId(plan.trust_domain)))]
    return _draft(plan, issuer, keys, [*_CA_EXTENSIONS, *_own_extensions(plan, issuer, names)])


def _own_extensions(
    plan: LeafPlan | CaPlan, issuer: SigningParty, names: list[x509.GeneralName]
) -> list[x509.Extension[x509.ExtensionType]]:
    """What differs from one certificate to the next."""
    extensions = [_extension(x509.SubjectKeyIdentifier.from_public_key(plan.public_key), critical=False)]
    if issuer.key_identifier is not None:
        extensions.append(_extension(issuer.key_identifier, critical=False))
    # RFC 5280 4.2.1.6: the SAN is critical exactly when the subject is empty.
    return [*extensions, _extension(x509.SubjectAlternativeName(names), critical=not plan.subject.rdns)]


def _draft(
    plan: LeafPlan | CaPlan,
    issuer: SigningParty,
    keys: ThrowAwayKeys,
    extensions: list[x509.Extension[x509.ExtensionType]],
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer_name=issuer.name,
        subject_name=plan.subject,
        public_key=plan.public_key,
        serial_number=plan.serial,
        not_valid_before=plan.not_before.replace(tzinfo=None),
        not_valid_after=plan.not_after.replace(tzinfo=None),
        extensions=extensions,
    )
    return builder.sign(keys.like(issuer.public_key), issuer.algorithm.hash)


def _extension(value: x509.ExtensionType, *, critical: bool) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


# What all leaves and all CAs have in common, made once.
_LEAF_EXTENSIONS = (
    _extension(profile.LEAF_KEY_USAGE, critical=True),
    _extension(profile.LEAF_EXTENDED_KEY_USAGE, critical=False),
    _extension(profile.LEAF_CONSTRAINTS, critical=True),
)
_CA_EXTENSIONS = (
    _extension(profile.CA_KEY_USAGE, critical=True),
    _extension(profile.CA_CONSTRAINTS, critical=True),
)


def join(tbs: bytes, issuer: SigningParty, signature: bytes) -> bytes:
    """The certificate of this TBSCertificate under this signature (RFC 5280 4.1: SEQUENCE of TBS, algorithm, bits)."""
    return encoding.value(encoding.SEQUENCE, tbs + issuer.algorithm.identifier + encoding.bits(signature))


def der(certificate: x509.Certificate) -> bytes:
    """The certificate as DER."""
    return certificate.public_bytes(Encoding.DER)
