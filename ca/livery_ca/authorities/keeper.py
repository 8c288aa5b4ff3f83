"""The one who keeps the authorities: loads or makes them at start, and moves them in time on each tick.

Owns: carrying out moves, in the order that survives a crash; the current bundle and signers. Does not own: which move
is due or legal (`states`), what an authority is made of (`making`).

Order of a preparation, so that no key is lost track of: the key's name is journalled, the key made and certified, then
state, journal line and bundle written at once. A key whose name is in the journal without an authority is destroyed at
the next start. Order of a retirement: written first, key destroyed after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from livery.errors import Kind, LiveryError
from livery.identity import BundleMap, TrustBundle
from livery.runtime.audit import Audit
from livery.runtime.clock import Clock
from livery.runtime.completion import whole
from livery.runtime.metrics import Metrics
from livery_ca.authorities import states
from livery_ca.authorities.making import AuthoritySettings, Maker
from livery_ca.authorities.states import Slots, Step
from livery_ca.certificates import algorithm, assemble
from livery_ca.issuance.timekeeping import TimeGuard
from livery_ca.keys import KeyStore, KeyUnreadable
from livery_ca.keys.key_store import new_key_id
from livery_ca.model import Authority, AuthorityEvent, AuthorityKind, AuthorityState, JwtSigner, X509Signer
from livery_ca.store.authorities import AuthorityRows
from livery_ca.upstreams import Upstream

__all__ = ["Authorities", "AuthorityParts", "AuthoritySettings", "NotStarted"]

TICK = timedelta(seconds=10)
_GENERATING = "generating"
_DESTROYED = "destroyed"
Signer = TypeVar("Signer", X509Signer, JwtSigner)
_log = structlog.get_logger("livery.ca.authorities")


class NotStarted(LiveryError):
    """There is no active authority yet."""

    code = "authorities_not_started"
    kind = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class AuthorityParts:
    """Whom the keeper works with."""

    rows: AuthorityRows
    keys: KeyStore
    upstream: Upstream
    clock: Clock
    guard: TimeGuard
    metrics: Metrics
    audit: Audit


@dataclass(frozen=True, slots=True)
class _Current:
    """What the authorities amount to at one moment; replaced whole, so its parts always agree."""

    authorities: tuple[Authority, ...]
    bundle: TrustBundle
    bundles: BundleMap
    x509: X509Signer | None
    jwt: JwtSigner | None


class Authorities:
    """The authorities of one trust domain. `start` it, then `run` it; the rest reads."""

    def __init__(self, parts: AuthorityParts, settings: AuthoritySettings) -> None:
        self._parts = parts
        self._settings = settings
        self._maker = Maker(settings, parts.keys, parts.upstream)
        self._moving = asyncio.Lock()
        self._current: _Current | None = None
        self._fault = ""
        self._ends = parts.metrics.gauge("ca_authority_not_after_seconds", "End of the active authority.", ["kind"])
        self._moves = parts.metrics.counter("ca_authority_moves", "Moves of authorities.", ["kind", "to"])
        self._failures = parts.metrics.counter("ca_authority_failures", "Moves that were due and failed.")

    async def start(self) -> None:
        """Take up the trust domain's authorities, or make its first ones.

        Raises `StoreForeign` (the state is another trust domain's), `KeyMissing` or `KeyUnreadable` (the key store does
        not go with the state), or what making an authority raises.
        """
        async with self._moving:
            await self._parts.rows.claim(self._settings.trust_domain)
            await self._destroy_leftovers()
            authorities = await self._parts.rows.list()
            if self._parts.keys.durable:
                await asyncio.to_thread(_check_keys, self._parts.keys, authorities)
            else:
                authorities = await self._without_lost_keys(authorities)
            await self._write(authorities, [], [])
            await self._do_what_is_due()

    async def tick(self) -> None:
        """Do what is due. A failure is told (`fault`, log, metric) and tried again at the next tick."""
        async with self._moving:
            try:
                await self._do_what_is_due()
                self._fault = ""
            except LiveryError as error:
                self._fault = str(error)
                self._failures.inc()
                _log.warning("authorities.tick_failed", error=str(error), fix=error.fix)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self._parts.clock.sleep(TICK.total_seconds())
            await self.tick()

    @property
    def fault(self) -> str:
        """Why the last tick failed, until one succeeds: what a health check reports."""
        return self._fault

    def current_bundle(self) -> TrustBundle:
        """Our bundle. The same object until it changes."""
        return self._now().bundle

    def bundles(self) -> BundleMap:
        """Our bundle as a map, for verifying. The same object until it changes."""
        return self._now().bundles

    def x509_signer(self) -> X509Signer:
        """The active X.509 authority. The same object until another one is active."""
        signer = self._now().x509
        if signer is None:
            raise _not_started()
        return signer

    def jwt_signer(self) -> JwtSigner:
        """The active JWT authority. The same object until another one is active."""
        signer = self._now().jwt
        if signer is None:
            raise _not_started()
        return signer

    def slots(self, kind: AuthorityKind) -> Slots:
        """Who is active, prepared and old."""
        return Slots.of(self._now().authorities, kind)

    async def prepare(self, kind: AuthorityKind, why: str) -> Authority:
        """Prepare a successor now. One that was prepared before and never signed is retired."""
        async with self._moving:
            return await self._prepare(kind, why)

    async def activate(self, kind: AuthorityKind, authority_id: str, why: str) -> Authority:
        """Let this authority sign from now on. Raises `IllegalMove` or `UnknownAuthority`."""
        async with self._moving:
            authority = states.find(self._now().authorities, authority_id, kind)
            return await self._activate(authority, why)

    async def taint(self, kind: AuthorityKind, authority_id: str, why: str) -> Authority:
        """Mark an old authority: whatever it signed is to be replaced at once."""
        async with self._moving:
            return await self._move_to(kind, authority_id, AuthorityState.TAINTED, why)

    async def revoke(self, kind: AuthorityKind, authority_id: str, why: str) -> Authority:
        """Take an authority that signs no more out of the bundle and destroy its key."""
        async with self._moving:
            retired = await self._move_to(kind, authority_id, AuthorityState.RETIRED, why)
            await self._destroy(retired.kind, retired.key_id, retired.id)
            return retired

    async def _do_what_is_due(self) -> None:
        """All steps that are due. What fails for one kind holds up no other; the first failure is raised at the end."""
        failures: list[LiveryError] = []
        for kind in AuthorityKind:
            try:
                while await self._step(kind):
                    pass
            except LiveryError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _step(self, kind: AuthorityKind) -> bool:
        """Carry out the next step that is due; says whether there was one."""
        step, authority = states.due(self.slots(kind), self._parts.clock.now(), self._parts.guard.reached())
        match step:
            case Step.PREPARE:
                await self._prepare(kind, "due")
            case Step.ACTIVATE:
                assert authority is not None
                await self._activate(authority, "due")
            case Step.RETIRE:
                assert authority is not None
                await self._retire(authority, "ended")
            case Step.NOTHING:
                return False
        return True

    async def _prepare(self, kind: AuthorityKind, why: str) -> Authority:
        parts, at = self._parts, self._parts.clock.now()
        key_id = new_key_id(kind.value)
        parts.audit.record("authority.prepare", "granted", kind=kind.value, key_id=key_id, why=why)
        await parts.rows.note(AuthorityEvent(at, kind, key_id, "", _GENERATING, why))
        try:
            made = await asyncio.to_thread(self._maker.make, kind, key_id, at)
        except LiveryError:
            await self._destroy(kind, key_id, "")
            raise
        await self._put_in_place(made, why)
        return made

    async def _put_in_place(self, made: Authority, why: str) -> None:
        """Write a prepared authority down; one that was prepared before it and never signed goes in the same write."""
        superseded = self.slots(made.kind).prepared
        changed, events = [made], [_event(made, why)]
        if superseded is not None:
            changed.append(states.move(superseded, AuthorityState.RETIRED, made.issued_at))
            events.append(_event(changed[1], "superseded before it signed"))
        await self._write(self._now().authorities, changed, events)
        if superseded is not None:
            await self._destroy(superseded.kind, superseded.key_id, superseded.id)

    async def _activate(self, authority: Authority, why: str) -> Authority:
        changed = states.activate(self.slots(authority.kind), authority, self._parts.clock.now())
        await asyncio.to_thread(_check_keys, self._parts.keys, changed[:1])
        self._parts.audit.record("authority.activate", "granted", kind=authority.kind.value, id=authority.id, why=why)
        await self._write(self._now().authorities, changed, [_event(a, why) for a in changed])
        return changed[0]

    async def _retire(self, authority: Authority, why: str) -> None:
        await self._move_to(authority.kind, authority.id, AuthorityState.RETIRED, why)
        await self._destroy(authority.kind, authority.key_id, authority.id)

    async def _move_to(self, kind: AuthorityKind, authority_id: str, state: AuthorityState, why: str) -> Authority:
        authority = states.find(self._now().authorities, authority_id, kind)
        moved = states.move(authority, state, self._parts.clock.now())
        self._parts.audit.record(f"authority.{state.value}", "granted", kind=kind.value, id=authority_id, why=why)
        await self._write(self._now().authorities, [moved], [_event(moved, why)])
        return moved

    async def _write(
        self, authorities: Sequence[Authority], changed: Sequence[Authority], events: Sequence[AuthorityEvent]
    ) -> None:
        """Write a change together with the bundle that follows from it, and make it the current state.

        Whole, also if cancelled: the store writes what it was handed, and memory goes with it.
        """
        await whole(self._write_and_take_up(states.replaced(authorities, changed), changed, events))

    async def _write_and_take_up(
        self, living: tuple[Authority, ...], changed: Sequence[Authority], events: Sequence[AuthorityEvent]
    ) -> None:
        bundle = states.bundle_of(self._settings.trust_domain, living, self._settings.refresh_hint)
        published = await self._parts.rows.apply(changed, events, bundle)
        self._current = self._amount_to(living, published)
        for authority in changed:
            self._moves.labels(authority.kind.value, authority.state.value).inc()
            _log.info("authority.moved", kind=authority.kind.value, id=authority.id, state=authority.state.value)

    def _amount_to(self, living: tuple[Authority, ...], bundle: TrustBundle) -> _Current:
        x509, jwt = (Slots.of(living, kind).active for kind in (AuthorityKind.X509, AuthorityKind.JWT))
        for active in (x509, jwt):
            if active is not None:
                self._ends.labels(active.kind.value).set(active.not_after.timestamp())
        before = self._current
        same = before is not None and before.bundle == bundle
        return _Current(
            authorities=living,
            bundle=before.bundle if same and before else bundle,
            bundles=before.bundles if same and before else BundleMap.of(bundle),
            x509=_keep(before.x509 if before else None, None if x509 is None else x509_signer_of(x509)),
            jwt=_keep(before.jwt if before else None, None if jwt is None else jwt_signer_of(jwt)),
        )

    async def _destroy_leftovers(self) -> None:
        """Destroy keys that a crash left behind: generated for no authority, or of a retired one."""
        last: dict[str, AuthorityEvent] = {event.key_id: event for event in await self._parts.rows.journal()}
        for event in last.values():
            if event.event in {_GENERATING, AuthorityState.RETIRED.value}:
                await self._destroy(event.kind, event.key_id, event.authority_id)

    async def _destroy(self, kind: AuthorityKind, key_id: str, authority_id: str) -> None:
        await asyncio.to_thread(self._parts.keys.retire, key_id)
        at = self._parts.clock.now()
        await self._parts.rows.note(AuthorityEvent(at, kind, key_id, authority_id, _DESTROYED))

    async def _without_lost_keys(self, authorities: Sequence[Authority]) -> tuple[Authority, ...]:
        """Where keys end with the process: whoever lost its key signs no more, and stays trusted if it has signed."""
        at = self._parts.clock.now()
        changed = []
        for authority in authorities:
            if authority.state is AuthorityState.ACTIVE:
                changed.append(states.move(authority, AuthorityState.OLD, at))
            elif authority.state is AuthorityState.PREPARED:
                changed.append(states.move(authority, AuthorityState.RETIRED, at))
        await self._write(authorities, changed, [_event(a, "its key ended with the process") for a in changed])
        return self._now().authorities

    def _now(self) -> _Current:
        if self._current is None:
            raise _not_started()
        return self._current


def x509_signer_of(authority: Authority) -> X509Signer:
    """The authority as an issuer of certificates needs it."""
    roots = set(authority.roots)
    return X509Signer(
        authority_id=authority.id,
        key_id=authority.key_id,
        certificate=authority.chain[0],
        chain_ders=tuple(assemble.der(c) for c in authority.chain if c not in roots),
        not_before=authority.not_before,
        not_after=authority.not_after,
    )


def jwt_signer_of(authority: Authority) -> JwtSigner:
    """The authority as an issuer of tokens needs it."""
    assert authority.jwt_key is not None
    jose = algorithm.algorithm_of(authority.jwt_key.public_key).jose
    return JwtSigner(authority.id, authority.key_id, jose, authority.not_after)


def _check_keys(keys: KeyStore, authorities: Sequence[Authority]) -> None:
    """The keys of all who sign or will sign are there, can be opened, and are the right ones."""
    for authority in authorities:
        if authority.state not in {AuthorityState.ACTIVE, AuthorityState.PREPARED}:
            continue
        if authority.jwt_key is not None:
            expected: object = authority.jwt_key.public_key
        else:
            expected = authority.chain[0].public_key()
        assert isinstance(expected, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        if keys.public_key(authority.key_id) != expected:
            why = f"its public key is not the one of authority {authority.id}"
            raise KeyUnreadable(
                f"key {authority.key_id} is another one", why=why, fix="restore keys and state together"
            )


def _event(authority: Authority, why: str) -> AuthorityEvent:
    at = authority.changed_at or authority.issued_at
    return AuthorityEvent(at, authority.kind, authority.key_id, authority.id, authority.state.value, why)


def _keep(before: Signer | None, after: Signer | None) -> Signer | None:
    """The former object while nothing changed, so that readers can tell by identity."""
    return before if before == after else after


def _not_started() -> NotStarted:
    return NotStarted("there is no active authority", why="the authority is still starting", fix="try again shortly")
