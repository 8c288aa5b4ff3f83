"""Every error this package raises, under one root.

Owns: the leaves a caller would handle differently. Does not own: their HTTP codes (`livery.runtime.problems`), nor the
classes of a refused call (`model.decision.Reason`): a denial is an answer, not an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from livery.errors import Kind, LiveryError

if TYPE_CHECKING:
    from livery_policy.findings import Finding


class PolicyError(LiveryError):
    """The root of this package's errors."""

    code = "policy"


class InvalidPolicies(PolicyError):
    """A set of policies that must not decide anything: `findings` says where and why, one line each."""

    code = "invalid_policies"
    kind = Kind.INVALID

    def __init__(self, findings: Sequence[Finding]) -> None:
        errors = [f for f in findings if f.is_error]
        first = str(errors[0]) if errors else "no finding"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(
            "these policies are not valid", why=first + more, fix="mend the file; `livery policy check` lists them all"
        )
        self.findings = tuple(findings)


class UnreadablePolicies(PolicyError):
    """The directory or a file of it cannot be read, or is no policy text."""

    code = "unreadable_policies"
    kind = Kind.PRECONDITION


class UnknownDecision(PolicyError):
    """No decision of this id is in memory (any more)."""

    code = "unknown_decision"
    kind = Kind.NOT_FOUND


class InvalidVocabulary(PolicyError):
    """A configured header or claim name that a schema cannot hold."""

    code = "invalid_vocabulary"
    kind = Kind.INVALID
