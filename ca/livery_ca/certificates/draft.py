"""A certificate before it is signed: the draft, what was planned, and who is to sign.

Owns: `Draft`, what lint rules are given. Does not own: the rules (`rules`) or the verdict (`lint`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from cryptography import x509

from livery_ca.certificates.assemble import SigningParty
from livery_ca.certificates.profile import CaPlan, LeafPlan

Plan = TypeVar("Plan", bound=LeafPlan | CaPlan)
Extension = TypeVar("Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Window:
    """From when until when an issuer is valid."""

    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Draft(Generic[Plan]):
    """A drafted certificate, what was planned, and who is to sign it (`window` None: it signs itself).

    Read once for all rules: `tbs`, the TBSCertificate; `after_serial`, its bytes from the signature algorithm on;
    `read`, the extensions by type: value and criticality.
    """

    certificate: x509.Certificate
    plan: Plan
    issuer: SigningParty
    window: Window | None
    tbs: bytes
    after_serial: bytes
    read: Mapping[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]]

    @classmethod
    def of(cls, certificate: x509.Certificate, plan: Plan, issuer: SigningParty, window: Window | None) -> Draft[Plan]:
        """The draft with its extensions read."""
        read = {type(found.value): (found.value, found.critical) for found in certificate.extensions}
        tbs = certificate.tbs_certificate_bytes
        return cls(certificate, plan, issuer, window, tbs, _after_serial(tbs), read)

    def extension(self, kind: type[Extension]) -> tuple[Extension | None, bool]:
        """The extension's value (None: absent) and whether it is critical."""
        value, critical = self.read.get(kind, (None, False))
        assert value is None or isinstance(value, kind)
        return value, critical


_VERSION_3 = bytes.fromhex("a003020102")


def _after_serial(tbs: bytes) -> bytes:
    """What follows version and serial number: RFC 5280 4.1, signature algorithm and issuer come next."""
    # X.690 8.1.3.5: beyond 127 bytes, the length's own length comes first.
    content = tbs[2 + (tbs[1] & 0x7F if tbs[1] & 0x80 else 0) :].removeprefix(_VERSION_3)
    return content[2 + content[1] :]  # a serial number has 20 octets at most
