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

    `tbs` is the TBSCertificate; `read` holds the extensions by type: value and criticality. Both are read once, here.
    """

    certificate: x509.Certificate
    plan: Plan
    issuer: SigningParty
    window: Window | None
    tbs: bytes
    read: Mapping[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]]

    @classmethod
    def of(cls, certificate: x509.Certificate, plan: Plan, issuer: SigningParty, window: Window | None) -> Draft[Plan]:
        """The draft with its extensions read."""
        read = {type(found.value): (found.value, found.critical) for found in certificate.extensions}
        return cls(certificate, plan, issuer, window, certificate.tbs_certificate_bytes, read)

    def extension(self, kind: type[Extension]) -> tuple[Extension | None, bool]:
        """The extension's value (None: absent) and whether it is critical."""
        value, critical = self.read.get(kind, (None, False))
        assert value is None or isinstance(value, kind)
        return value, critical
