"""Keeps the decision point on the newest valid policies of a directory.

Owns: loading, watching, and the last good version. Does not own: the files' meaning (`engine`), or deciding.

Invariants: the engine changes whole or not at all; a set with an error never decides, and the last good one stays in
force, with the error in the log and in the status. A directory is read only when two looks at it agree, so that a
change of several files under way is not taken for the new state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from livery.errors import LiveryError
from livery.runtime.clock import Clock
from livery.runtime.logging import get_logger
from livery.runtime.metrics import Metrics
from livery_policy.bundles.directory import Fingerprint, fingerprint, read_directory
from livery_policy.decisions.point import DecisionPoint
from livery_policy.engine.cache import DecisionCache
from livery_policy.engine.compiling import CompiledSet, compile_policies
from livery_policy.engine.decide import Engine
from livery_policy.engine.source import PolicyFile
from livery_policy.errors import InvalidPolicies, PolicyError, UnreadablePolicies
from livery_policy.findings import Finding
from livery_policy.model.decision import PolicyVersion
from livery_policy.model.vocabulary import Vocabulary

_STEADY_LOOKS = 20  # how often a directory that keeps changing is looked at before it is called an error

log = get_logger("livery.policy")


@dataclass(frozen=True, slots=True)
class Status:
    """What is in force, since when, and what is wrong with what is not."""

    version: PolicyVersion | None = None
    loaded_at: datetime | None = None
    policies: int = 0
    warnings: tuple[Finding, ...] = ()
    error: str | None = None
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain data for administrators."""
        return {
            "version": self.version.as_dict() if self.version else None,
            "loaded_at": self.loaded_at.isoformat(timespec="milliseconds") if self.loaded_at else None,
            "policies": self.policies,
            "warnings": [f.as_dict() for f in self.warnings],
            "error": self.error,
            "findings": [f.as_dict() for f in self.findings],
        }


@dataclass(frozen=True, slots=True)
class PolicyDirectory:
    """Where policies come from, what they may speak of, and how often (seconds) they are looked at for changes."""

    path: Path
    vocabulary: Vocabulary
    every: float = 2.0
    read: Callable[[Path], tuple[PolicyFile, ...]] = read_directory


class PolicyKeeper:
    """Loads a directory into a decision point, now and whenever it changes."""

    def __init__(
        self, source: PolicyDirectory, point: DecisionPoint, clock: Clock, metrics: Metrics, *, cache_size: int = 65536
    ) -> None:
        self._source = source
        self._point = point
        self._clock = clock
        self._cache = DecisionCache(cache_size) if cache_size else None
        self._seen: Fingerprint | None = None
        self._loading = asyncio.Lock()
        self._stale = metrics.gauge("policies_stale", "1 while the newest policies are invalid and older ones decide.")
        self._count = metrics.gauge("policies", "Policies in force.")
        self.status = Status()

    async def load(self) -> Status:
        """Load the directory now. Raises `InvalidPolicies` or `UnreadablePolicies`; what was in force stays so."""
        async with self._loading:
            try:
                self._seen, compiled = await self._compiled()
            except PolicyError as e:
                if isinstance(e, UnreadablePolicies):
                    self._seen = None  # look again, even if it comes back unchanged
                self._keep_last(e)
                raise
            self._put_in_force(compiled)
        return self.status

    async def watch(self) -> None:
        """Load again after each change, for ever. Errors are logged once per change, not once per look."""
        while True:
            await self._clock.sleep(self._source.every)
            try:
                if await asyncio.to_thread(fingerprint, self._source.path) != self._seen:
                    await self.load()
            except InvalidPolicies:
                continue  # `load` has told; there is nothing new until it changes
            except Exception as e:  # noqa: BLE001 - a task boundary: what nobody foresaw must not end the deciding
                self._seen = None  # look again, even if it comes back unchanged
                self._keep_last(e if isinstance(e, UnreadablePolicies) else _unforeseen(e))

    async def _compiled(self) -> tuple[Fingerprint, CompiledSet]:
        before = await asyncio.to_thread(fingerprint, self._source.path)
        for _ in range(_STEADY_LOOKS):
            files = await asyncio.to_thread(self._source.read, self._source.path)
            after = await asyncio.to_thread(fingerprint, self._source.path)
            if after == before:
                return after, await self._compile(files, after)
            before = after
            await self._clock.sleep(0.05)
        raise UnreadablePolicies(
            f"{self._source.path} does not stop changing", fix="write the files, then move them in"
        )

    async def _compile(self, files: tuple[PolicyFile, ...], looked: Fingerprint) -> CompiledSet:
        try:
            # Parsing holds the interpreter for a third of a millisecond a policy: not on the event loop.
            return await asyncio.to_thread(compile_policies, files, self._source.vocabulary)
        except InvalidPolicies:
            self._seen = looked  # whoever asked for it: when it is no longer so, what is wrong is mended
            raise

    def _put_in_force(self, compiled: CompiledSet) -> None:
        self._point.use(Engine(compiled, self._source.vocabulary, cache=self._cache))
        self.status = Status(compiled.version, self._clock.now(), len(compiled.policies), compiled.warnings)
        self._stale.set(0)
        self._count.set(len(compiled.policies))
        log.info("policies loaded", policies=len(compiled.policies), **compiled.version.as_dict())
        for warning in compiled.warnings:
            log.warning("policy warning", finding=str(warning))

    def _keep_last(self, error: LiveryError) -> None:
        if isinstance(error, UnreadablePolicies) and self.status.error == str(error):
            return  # told already: what cannot be read is looked at again and again
        findings = error.findings if isinstance(error, InvalidPolicies) else ()
        self.status = replace(self.status, error=str(error), findings=findings)
        self._stale.set(1)
        in_force = self.status.version.digest if self.status.version else None
        log.error("policies not loaded", error=str(error), findings=[str(f) for f in findings[:20]], in_force=in_force)


def _unforeseen(error: Exception) -> UnreadablePolicies:
    return UnreadablePolicies("the policies could not be loaded", why=f"{type(error).__name__}: {error}"[:500])
