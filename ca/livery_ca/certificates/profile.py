"""The shapes of certificate the authority makes, field by field as SPIRE makes them.

Owns: `Profile` and, per profile, subject, usages and extension set; the serial and the backdate. Does not own: building
bytes (`assemble`), judging them (`lint`).
"""

from __future__ import annotations

from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec, rsa

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class Profile(StrEnum):
    """Who a leaf certificate is for. All leaves share one shape; the profile decides the path rule and the subject."""

    WORKLOAD = "workload"
    AGENT = "agent"
    SERVER = "server"
    MINT = "mint"  # by an administrator, from a CSR whose subject is kept
