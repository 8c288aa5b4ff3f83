"""Why something was not issued, one leaf per thing a caller would do differently.

Owns: the pipeline's own refusals. Does not own: those of lint, key stores and the store, which pass through
as they are.
"""

from __future__ import annotations

from typing import ClassVar

from livery.errors import Kind, LiveryError


class IssuanceError(LiveryError):
    """The root of the pipeline's errors."""

    code: ClassVar[str] = "issuance"


class RequestRefused(IssuanceError):
    """What was asked for cannot be issued to anybody: ask for something else."""

    code: ClassVar[str] = "request_refused"
    kind: ClassVar[Kind] = Kind.INVALID


class AuthorityEnding(IssuanceError):
    """The active authority ends too soon for anything to be signed by it."""

    code: ClassVar[str] = "authority_ending"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class ClockBehind(IssuanceError):
    """The wall clock is behind what was journalled before, so nothing is issued."""

    code: ClassVar[str] = "clock_behind"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE


class NotSound(IssuanceError):
    """What was signed did not verify, and was withheld."""

    code: ClassVar[str] = "not_sound"
    kind: ClassVar[Kind] = Kind.INTERNAL


class AlreadyRedeemed(IssuanceError):
    """An intent is signed once; a retry is a new intent."""

    code: ClassVar[str] = "already_redeemed"
    kind: ClassVar[Kind] = Kind.INTERNAL


class IssuerClosed(IssuanceError):
    """The issuer is stopping."""

    code: ClassVar[str] = "issuer_closed"
    kind: ClassVar[Kind] = Kind.UNAVAILABLE
