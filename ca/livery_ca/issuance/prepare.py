"""PREPARE: from a request to a certificate that is complete, linted, and signed by nobody.

Owns: the plan (validity, subject, serial) and `Linted`, the only thing that can be journalled. Does not own: who may
ask, the active authority.

Invariants: a `Linted` is made here and nowhere else, and only for a draft that kept every rule. Nothing outlives the
authority that will sign it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, Self

from cryptography import x509

from livery.errors import LiveryError
from livery.identity import BundleMap
from livery_ca.certificates import assemble, profile
from livery_ca.certificates.assemble import SigningParty, ThrowAwayKeys
from livery_ca.certificates.draft import Draft, Window
from livery_ca.certificates.lint import lint_leaf
from livery_ca.certificates.profile import BACKDATE, MIN_LIFETIME, LeafPlan
from livery_ca.issuance.errors import AuthorityEnding, RequestRefused
from livery_ca.issuance.request import IssueRequest, Refused
from livery_ca.model import JwtSigner, X509Signer

_SEAL: Final = object()


class Signers(Protocol):
    """Who is active now, and the bundle by which what they sign is verified."""

    def x509_signer(self) -> X509Signer:
        """The active X.509 authority; the same object until another one is active."""
        ...

    def jwt_signer(self) -> JwtSigner:
        """The active JWT authority; the same object until another one is active."""
        ...

    def bundles(self) -> BundleMap:
        """Our bundle as a map."""
        ...


@dataclass(frozen=True, slots=True)
class Authority:
    """The active authority, read once for all that it signs."""

    signer: X509Signer
    party: SigningParty
    window: Window
    intermediates: tuple[x509.Certificate, ...]

    @classmethod
    def of(cls, signer: X509Signer) -> Self:
        """Read the signer's certificates."""
        chain = tuple(x509.load_der_x509_certificate(der) for der in signer.chain_ders)
        window = Window(signer.not_before, signer.not_after)
        return cls(signer, SigningParty.of(signer.certificate), window, chain)


@dataclass(frozen=True, slots=True)
class Moment:
    """What one group is issued under, fixed at its beginning: a rotation meanwhile changes nothing within it."""

    authority: Authority
    bundles: BundleMap
    now: datetime


@dataclass(frozen=True, slots=True)
class Linted:
    """A certificate that may be journalled: planned, drafted, and found to keep every rule."""

    request: IssueRequest
    plan: LeafPlan
    tbs: bytes
    moment: Moment
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only PREPARE makes a Linted")


class Preparation:
    """Plans, drafts and lints."""

    def __init__(self, serials: Callable[[], int]) -> None:
        self._serials = serials
        self._keys = ThrowAwayKeys()

    def prepare(self, request: IssueRequest, moment: Moment) -> Linted | Refused:
        """1. plan  2. draft under a throw-away signature  3. lint. A refusal is the item's own."""
        authority = moment.authority
        try:
            plan = self._plan(request, moment)  # 1
            draft = assemble.draft_leaf(plan, authority.party, self._keys)  # 2
            linted = Draft.of(draft, plan, authority.party, authority.window)
            lint_leaf(linted)  # 3
        except LiveryError as error:
            return Refused(error)
        except Exception as cause:  # noqa: BLE001 - the item's own fault, of whatever type: its group is not to suffer
            refusal = RequestRefused("the certificate cannot be encoded", why=str(cause))
            refusal.__cause__ = cause
            return Refused(refusal)
        return Linted(request, plan, linted.tbs, moment, _SEAL)

    def _plan(self, request: IssueRequest, moment: Moment) -> LeafPlan:
        not_before, not_after = validity(request.ttl, moment.now, moment.authority.window)
        return LeafPlan(
            profile=request.profile,
            serial=self._serials(),
            spiffe_id=request.spiffe_id,
            public_key=request.public_key,
            subject=profile.leaf_subject(request.dns_names, request.subject),
            dns_names=request.dns_names,
            not_before=not_before,
            not_after=not_after,
        )


def validity(ttl: timedelta, now: datetime, issuer: Window) -> tuple[datetime, datetime]:
    """From `now`, backdated, until `ttl` has passed or the issuer ends, in whole seconds (RFC 5280 4.1.2.5).

    Raises `RequestRefused` for a TTL under ten seconds, `AuthorityEnding` where the issuer leaves less than that or is
    itself not valid yet.
    """
    start = now.replace(microsecond=0)
    if ttl < MIN_LIFETIME:
        why = f"{ttl.total_seconds():g} s are less than {MIN_LIFETIME.total_seconds():g} s"
        raise RequestRefused("the lifetime asked for is too short", why=why)
    not_after = min(start + timedelta(seconds=int(ttl.total_seconds())), issuer.not_after.replace(microsecond=0))
    if now < issuer.not_before or not_after - start < MIN_LIFETIME:
        why = f"it is valid from {issuer.not_before.isoformat()} until {issuer.not_after.isoformat()}"
        fix = "look at the clock, and at why no successor was activated in time"
        raise AuthorityEnding("the active authority cannot sign now", why=why, fix=fix)
    return max(start - BACKDATE, issuer.not_before), not_after
