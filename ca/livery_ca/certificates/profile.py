"""The shapes of certificate the authority makes, field by field as SPIRE makes them.

Owns: `Profile`, the plans of a leaf and of a CA certificate, their subjects and usages, the serial, the backdate. Does
not own: building bytes (`assemble`), judging them (`lint`).

A plan says everything that will be in the certificate; who signs it is the other half (`assemble.SigningParty`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from livery.identity import SpiffeId, TrustDomain
from livery_ca.certificates.algorithm import PublicKey

BACKDATE = timedelta(seconds=10)  # so that a clock a little behind ours accepts the certificate at once
MIN_LIFETIME = timedelta(seconds=10)  # a shorter certificate would end before it could be put to use
SERIAL_BITS = 159  # the most that fits 20 octets as a positive INTEGER (RFC 5280 4.1.2.2)
MAX_COMMON_NAME = 64  # RFC 5280, ub-common-name

__all__ = ["BACKDATE", "MIN_LIFETIME", "CaPlan", "LeafPlan", "Profile", "PublicKey", "new_serial"]


class Profile(StrEnum):
    """Who a leaf certificate is for. All leaves share one shape; the profile decides the subject and the path rule."""

    WORKLOAD = "workload"
    AGENT = "agent"
    SERVER = "server"
    MINT = "mint"  # by an administrator, from a CSR whose subject is kept


@dataclass(frozen=True, slots=True)
class LeafPlan:
    """Everything that will be in a leaf certificate but its issuer."""

    profile: Profile
    serial: int
    spiffe_id: SpiffeId
    public_key: PublicKey
    subject: x509.Name
    dns_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class CaPlan:
    """Everything that will be in a CA certificate but its issuer."""

    serial: int
    trust_domain: TrustDomain
    public_key: PublicKey
    subject: x509.Name
    not_before: datetime
    not_after: datetime


def new_serial() -> int:
    """A serial number: positive, 159 random bits. Never reused, so a retry asks again."""
    return secrets.randbits(SERIAL_BITS) or new_serial()


LEAF_NAME = x509.Name(
    [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")]
)


def leaf_subject(dns_names: tuple[str, ...], asked: x509.Name | None) -> x509.Name:
    """The subject of a leaf: the one asked for (mint only) or SPIRE's, with the first DNS name as common name.

    A name too long for a common name stays in the SAN alone: RFC 5280 bounds the one and not the other.
    """
    base = LEAF_NAME if asked is None else asked
    if not dns_names or len(dns_names[0]) > MAX_COMMON_NAME:
        return base
    kept = [rdn for rdn in base.rdns if all(a.oid != NameOID.COMMON_NAME for a in rdn)]
    common_name = x509.NameAttribute(NameOID.COMMON_NAME, dns_names[0])
    return x509.Name([*kept, x509.RelativeDistinguishedName([common_name])])


def ca_subject(serial: int) -> x509.Name:
    """The subject of a self-signed CA, told apart from its predecessors by its own serial number, as SPIRE does."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, str(serial)),
        ]
    )


def _usage(*, leaf: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=leaf,
        key_encipherment=leaf,
        key_agreement=leaf,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        content_commitment=False,
        data_encipherment=False,
        encipher_only=False,
        decipher_only=False,
    )


LEAF_KEY_USAGE = _usage(leaf=True)  # X509-SVID 4.3
CA_KEY_USAGE = _usage(leaf=False)
LEAF_EXTENDED_KEY_USAGE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
LEAF_CONSTRAINTS = x509.BasicConstraints(ca=False, path_length=None)
CA_CONSTRAINTS = x509.BasicConstraints(ca=True, path_length=None)
