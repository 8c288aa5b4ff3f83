"""The answer to a call: what was decided, by which policies, of which version, and why.

Owns: `Decision`, the classes of reasons and what a caller does about each. Does not own: how a decision is reached
(`engine`), kept (`decisions`) or told to others (`doors`, `enforce`).

Invariants: only `Reason.PERMITTED` allows. "Nobody decided" (`Reason.NO_DECISION`) is not "no": its kind is
UNAVAILABLE, so that a caller may try again. A remote caller learns the id and the reason's class, never more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from livery.errors import Kind


class Outcome(StrEnum):
    """The decision in one word."""

    ALLOW = "allow"
    DENY = "deny"


class Reason(StrEnum):
    """The class of a decision's reason: all that a remote caller is told about it."""

    PERMITTED = "permitted"
    NOT_PERMITTED = "not_permitted"  # no policy permits it
    FORBIDDEN = "forbidden"  # a policy forbids it
    POLICY_ERROR = "policy_error"  # a forbidding policy could not be evaluated, so it is taken to forbid
    BAD_SUBJECT = "bad_subject"
    BAD_ACTION = "bad_action"
    BAD_RESOURCE = "bad_resource"
    BAD_CONTEXT = "bad_context"  # a known name with a value of the wrong type, or a required one missing
    BAD_PATH = "bad_path"  # not in normal form (`model.paths`)
    NO_DECISION = "no_decision"  # nobody decided: error, time-out, nobody there


_KINDS: Mapping[Reason, Kind] = MappingProxyType(
    {
        Reason.NOT_PERMITTED: Kind.DENIED,
        Reason.FORBIDDEN: Kind.DENIED,
        Reason.POLICY_ERROR: Kind.DENIED,
        Reason.BAD_SUBJECT: Kind.INVALID,
        Reason.BAD_ACTION: Kind.INVALID,
        Reason.BAD_RESOURCE: Kind.INVALID,
        Reason.BAD_CONTEXT: Kind.INVALID,
        Reason.BAD_PATH: Kind.INVALID,
        Reason.NO_DECISION: Kind.UNAVAILABLE,
    }
)


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """Which policies decided: their digest (schema included), and a number once policies are distributed by number."""

    digest: str  # "sha256:…"
    number: int | None = None

    def as_dict(self) -> dict[str, object]:
        """`{"number", "digest"}`, the form it has in every log line and answer."""
        return {"number": self.number, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A permit that came near: what of it failed, in the order it is read."""

    policy: str
    where: str  # file:line
    failed: tuple[str, ...]  # never empty; the first is the reason, later ones may depend on it
    held: int  # how many of its parts held

    @property
    def first_failed(self) -> str:
        """The part that failed first: the reason this policy did not permit."""
        return self.failed[0]


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer. `id` finds it again in the log; `detail` and `nearest` are for the log and administrators."""

    id: str
    reason: Reason
    version: PolicyVersion | None = None
    policies: tuple[str, ...] = ()  # the ids that decided, sorted
    detail: str = ""
    nearest: tuple[NearMiss, ...] = ()
    errors: tuple[str, ...] = ()  # of policies that could not be evaluated
    dropped: tuple[str, ...] = ()  # names in the call that nobody knows

    @property
    def allowed(self) -> bool:
        """Whether the call may be made."""
        return self.reason is Reason.PERMITTED

    @property
    def outcome(self) -> Outcome:
        """Allow or deny."""
        return Outcome.ALLOW if self.allowed else Outcome.DENY

    @property
    def kind(self) -> Kind | None:
        """What a caller would do about a refusal; None if there is nothing to do."""
        return _KINDS.get(self.reason)
