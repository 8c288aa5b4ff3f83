"""The life of an authority as a pure machine: which moves there are, and which one is due.

Owns: the legal moves, SPIRE's formulas for preparing and activating in time, the bundle that authorities make. Does not
own: carrying a move out (`keeper`). No clock, no I/O: every function takes values and a time.

Invariants: at most one authority of a kind is active and at most one prepared. Nothing signs that was not in the bundle
before. What was tainted never signs again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from livery.errors import Kind, LiveryError
from livery.identity import TrustBundle, TrustDomain, X509Authority
from livery_ca.model import Authority, AuthorityKind, AuthorityState

_LONGEST_PREPARATION = timedelta(days=30)
_LONGEST_ACTIVATION = timedelta(days=7)
KEPT_AFTER_END = timedelta(hours=24)  # an ended authority stays in the bundle for as long as clocks may differ

_MOVES = {
    AuthorityState.PREPARED: {AuthorityState.ACTIVE, AuthorityState.RETIRED},
    AuthorityState.ACTIVE: {AuthorityState.OLD},
    # Back to active: how a rotation is taken back. The key lives until the authority is retired.
    AuthorityState.OLD: {AuthorityState.ACTIVE, AuthorityState.TAINTED, AuthorityState.RETIRED},
    AuthorityState.TAINTED: {AuthorityState.RETIRED},
    AuthorityState.RETIRED: set[AuthorityState](),
}


class IllegalMove(LiveryError):
    """The authority cannot go there from where it is."""

    code = "illegal_move"
    kind = Kind.PRECONDITION


class UnknownAuthority(LiveryError):
    """There is no authority of this ID."""

    code = "unknown_authority"
    kind = Kind.NOT_FOUND


class Step(StrEnum):
    """What is due for the authorities of one kind."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Slots:
    """The authorities of one kind by their place. `others` are old or tainted, oldest first."""

    active: Authority | None
    prepared: Authority | None
    others: tuple[Authority, ...]

    @classmethod
    def of(cls, authorities: Iterable[Authority], kind: AuthorityKind) -> Slots:
        """Sort the living authorities of this kind into their places."""
        ours = [a for a in authorities if a.kind is kind]
        return cls(
            active=next((a for a in ours if a.state is AuthorityState.ACTIVE), None),
            prepared=next((a for a in ours if a.state is AuthorityState.PREPARED), None),
            others=tuple(a for a in ours if a.state in {AuthorityState.OLD, AuthorityState.TAINTED}),
        )

    @property
    def old(self) -> Authority | None:
        """The authority that was active before this one."""
        return next((a for a in reversed(self.others) if a.state is AuthorityState.OLD), None)


def prepare_at(authority: Authority) -> datetime:
    """From when on a successor must be prepared: NotAfter - min(lifetime / 2, 30 d)."""
    return authority.not_after - min(authority.lifetime / 2, _LONGEST_PREPARATION)


def activate_at(authority: Authority) -> datetime:
    """From when on the successor must sign: NotAfter - min(lifetime / 6, 7 d)."""
    return authority.not_after - min(authority.lifetime / 6, _LONGEST_ACTIVATION)


def due(slots: Slots, now: datetime, reached: datetime) -> tuple[Step, Authority | None]:
    """The next step, and the authority it is for. Asked again after each step, until nothing is due.

    `reached` is the time that has surely come: what was retired is gone for good, so a clock that is ahead of it by
    mistake must not be believed.
    """
    prepared = slots.prepared if slots.prepared is not None and slots.prepared.not_after > now else None
    if slots.active is None:
        return (Step.PREPARE, None) if prepared is None else (Step.ACTIVATE, prepared)
    if prepared is None and now > prepare_at(slots.active):
        return Step.PREPARE, None
    if prepared is not None and now > activate_at(slots.active):
        return Step.ACTIVATE, prepared
    ended = next((a for a in slots.others if a.not_after + KEPT_AFTER_END < reached), None)
    return (Step.NOTHING, None) if ended is None else (Step.RETIRE, ended)


def move(authority: Authority, state: AuthorityState, at: datetime) -> Authority:
    """The authority in its new state. Raises `IllegalMove`."""
    if state not in _MOVES[authority.state]:
        what = f"authority {authority.id} cannot become {state.value}"
        allowed = " or ".join(sorted(s.value for s in _MOVES[authority.state])) or "nothing else"
        raise IllegalMove(what, why=f"it is {authority.state.value}, and can become {allowed}")
    return replace(authority, state=state, changed_at=at)


def activate(slots: Slots, authority: Authority, at: datetime) -> tuple[Authority, ...]:
    """What changes when this authority begins to sign: itself, and the one that did so far."""
    if authority.not_after <= at:
        raise IllegalMove(f"authority {authority.id} cannot become active", why=f"it ended at {authority.not_after}")
    changed = move(authority, AuthorityState.ACTIVE, at)
    return (changed,) if slots.active is None else (changed, move(slots.active, AuthorityState.OLD, at))


def find(authorities: Sequence[Authority], authority_id: str, kind: AuthorityKind) -> Authority:
    """The living authority of this ID and kind. Raises `UnknownAuthority`."""
    for authority in authorities:
        if authority.id == authority_id and authority.kind is kind:
            return authority
    raise UnknownAuthority(f"there is no {kind.value} authority {authority_id!r}")


def bundle_of(trust_domain: TrustDomain, authorities: Iterable[Authority], refresh_hint: timedelta) -> TrustBundle:
    """Our bundle: the roots of every living X.509 authority and the key of every living JWT authority."""
    roots: dict[bytes, X509Authority] = {}
    keys = []
    for authority in authorities:
        tainted = authority.state is AuthorityState.TAINTED
        if authority.jwt_key is not None:
            keys.append(replace(authority.jwt_key, tainted=tainted))
        for root in authority.roots:
            anchor = X509Authority(root, tainted)
            known = roots.get(anchor.der())
            # A root that several authorities share is tainted only with the last of them.
            roots[anchor.der()] = anchor if known is None or known.tainted else known
    return TrustBundle(trust_domain, tuple(roots.values()), tuple(keys), refresh_hint=refresh_hint)


def replaced(authorities: Sequence[Authority], changed: Iterable[Authority]) -> tuple[Authority, ...]:
    """The living authorities after a change, oldest first."""
    merged = {a.id: a for a in authorities} | {a.id: a for a in changed}
    living = (a for a in merged.values() if a.state is not AuthorityState.RETIRED)
    return tuple(sorted(living, key=lambda a: (a.issued_at, a.id)))
