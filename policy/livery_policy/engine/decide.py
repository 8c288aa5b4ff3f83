"""The pure core: a `Call` in, a `Judgement` out, the same for whoever asks.

Owns: the order of the argument and the line that denies. Does not own: identifiers, time, logs (`decisions`), doors.

Invariants: `judge` never raises. Only an evaluation that says Allow, with no forbidding policy in error, permits;
an empty set, an evaluator that fails or cannot decide, a call that cannot be read: each denies, and the class says
which. Cedar skips a policy whose condition errors, and a skipped forbid must not become an Allow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from livery_policy import cedar
from livery_policy.engine.cache import DecisionCache, Verdict, project, values_key
from livery_policy.engine.compiling import CompiledSet
from livery_policy.engine.reasons import Nearest
from livery_policy.engine.slices import Slice, Slices
from livery_policy.model.calls import Asked, Call, CallReader, Unreadable
from livery_policy.model.decision import NearMiss, PolicyVersion, Reason
from livery_policy.model.entities import ACTION, SERVICE, WORKLOAD, EntityBook, Pair
from livery_policy.model.vocabulary import Vocabulary

_ERROR_OF = re.compile(r"error while evaluating policy `([A-Za-z0-9._/-]+)`: ", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the core makes of a call: a `Decision` but for its id."""

    reason: Reason
    version: PolicyVersion
    policies: tuple[str, ...] = ()
    detail: str = ""
    nearest: tuple[NearMiss, ...] = ()
    errors: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class Engine:
    """One version of the policies, ready to judge. Versions may share a cache: its keys tell them apart."""

    def __init__(
        self,
        compiled: CompiledSet,
        vocabulary: Vocabulary,
        *,
        cache: DecisionCache | None = None,
        entities: EntityBook | None = None,
        evaluator: cedar.Evaluator = cedar.ask,
    ) -> None:
        self.compiled = compiled
        self._reader = CallReader(vocabulary)
        self._entities = entities or EntityBook(compiled.schema)
        self._slices = Slices(compiled)
        self._cache = cache
        self._evaluator = evaluator
        self._nearest = Nearest(compiled, evaluator)

    @property
    def version(self) -> PolicyVersion:
        """Which policies judge here."""
        return self.compiled.version

    def judge(self, call: Call, at: datetime, *, explain: bool = True) -> Judgement:
        """Judge a call at a time. With `explain`, a call that nothing permits gets its nearest policies."""
        try:
            return self._judge(call, at, explain=explain)
        except Exception as e:  # noqa: BLE001 - the boundary that must answer: whatever went wrong, nobody decided
            return Judgement(Reason.NO_DECISION, self.version, detail=f"{type(e).__name__}: {e}"[:500])

    def _judge(self, call: Call, at: datetime, *, explain: bool) -> Judgement:
        """(1) Who; (2) what; (3) which policies could apply; (4) ask them; (5) judge the answer; (6) explain a no."""
        pair = self._entities.pair(call.principal, call.resource)  # 1
        if isinstance(pair, Unreadable):
            return self._refusal(pair)
        asked = self._reader.read(call)  # 2
        if isinstance(asked, Unreadable):
            return self._refusal(asked)
        found = self._slices.find(pair, asked.action)  # 3
        verdict = self._verdict(found, pair, asked, at)  # 4, 5
        nearest: tuple[NearMiss, ...] = ()
        if explain and verdict.reason is Reason.NOT_PERMITTED:
            nearest = self._explain(pair, asked, at)  # 6
        return Judgement(
            verdict.reason,
            self.version,
            policies=verdict.policies,
            detail=_detail(verdict),
            nearest=nearest,
            errors=verdict.errors,
            dropped=asked.dropped,
        )

    def _verdict(self, found: Slice, pair: Pair, asked: Asked, at: datetime) -> Verdict:
        key = self._key(found, pair, asked)
        if self._cache is not None and key is not None and (known := self._cache.get(key)) is not None:
            return known
        context = project(_with_now(asked, at) if not found.cacheable else asked.context, found.paths)
        verdict = judged(self._evaluator(_question(pair, asked, context), found.handle, pair.handle), found)
        if self._cache is not None and key is not None and verdict.reason is not Reason.NO_DECISION:
            self._cache.put(key, verdict)
        return verdict

    def _key(self, found: Slice, pair: Pair, asked: Asked) -> tuple[object, ...] | None:
        """Everything the answer depends on; None if it depends on the time."""
        if self._cache is None or not found.cacheable:
            return None
        values = values_key(asked.context, found.paths)
        if values is None:
            return None
        return (found.identity, self._entities.version, pair.principal, asked.action, pair.resource, values)

    def _explain(self, pair: Pair, asked: Asked, at: datetime) -> tuple[NearMiss, ...]:
        try:
            question = _question(pair, asked, _with_now(asked, at))
            return self._nearest.find(question, self._slices.scope_keys(pair, asked.action), pair.handle)
        except Exception:  # noqa: BLE001 - the no stands, whatever happens to its explanation
            return ()

    def _refusal(self, why: Unreadable) -> Judgement:
        return Judgement(why.reason, self.version, detail=why.detail, dropped=why.dropped)


def judged(answer: cedar.Answer, of: Slice) -> Verdict:
    """What an answer means for the caller. This is the line that denies."""
    if answer.allowed is None:
        return Verdict(Reason.NO_DECISION, (), answer.errors)
    broken = _broken_forbids(answer, of)
    if answer.allowed and not broken:
        return Verdict(Reason.PERMITTED, tuple(sorted(answer.reasons)), answer.errors)
    if answer.allowed:
        return Verdict(Reason.POLICY_ERROR, broken, answer.errors)
    if answer.reasons:
        return Verdict(Reason.FORBIDDEN, tuple(sorted(answer.reasons)), answer.errors)
    # Not permitted anyway; but say so if a forbid is broken, since it will bite on the first call that is permitted.
    return Verdict(Reason.POLICY_ERROR if broken else Reason.NOT_PERMITTED, broken, answer.errors)


def _broken_forbids(answer: cedar.Answer, of: Slice) -> tuple[str, ...]:
    """The forbids that could not be evaluated. An error that names no policy is taken to be of all of them."""
    broken: set[str] = set()
    for error in answer.errors:
        match = _ERROR_OF.match(error)
        broken |= of.forbids if match is None else {match[1]} & of.forbids
    return tuple(sorted(broken))


def _question(pair: Pair, asked: Asked, context: object) -> cedar.Question:
    return cedar.Question(
        (WORKLOAD, pair.principal),
        (ACTION, asked.action),
        (SERVICE, pair.resource),
        msgspec.json.encode(context).decode(),
    )


def _with_now(asked: Asked, at: datetime) -> dict[str, object]:
    moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**asked.context, "now": {"__extn": {"fn": "datetime", "arg": moment}}}


def _detail(verdict: Verdict) -> str:
    match verdict.reason:
        case Reason.PERMITTED:
            return f"permitted by {', '.join(verdict.policies)}"
        case Reason.FORBIDDEN:
            return f"forbidden by {', '.join(verdict.policies)}"
        case Reason.POLICY_ERROR:
            return f"a forbidding policy could not be evaluated: {', '.join(verdict.policies)}"
        case Reason.NO_DECISION:
            return f"the evaluator could not decide: {'; '.join(verdict.errors)[:300]}"
    return "no policy permits this call"


__all__ = ["Engine", "Judgement", "judged"]
