"""Upstreams: one self-signs, and can be told to fail or to answer something else; one has a root above us."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from livery_ca.certificates.algorithm import PublicKey
from livery_ca.keys import KeyStore
from livery_ca.upstreams import CaRequest, MintedCa
from livery_ca.upstreams.self_signed import SelfSigned
from tests.pki import TestCa


@dataclass
class FakeUpstream:
    """An `Upstream`. `error` is raised; `asked` replaces fields of the request, `answered` of the answer."""

    keys: KeyStore
    error: BaseException | None = None
    answer: MintedCa | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    answered: dict[str, Any] = field(default_factory=dict)

    def mint(self, request: CaRequest) -> MintedCa:
        if self.error is not None:
            raise self.error
        minted = self.answer or SelfSigned(self.keys).mint(replace(request, **self.asked))
        return replace(minted, **self.answered)


@dataclass(frozen=True)
class RootAbove:
    """An `Upstream` with a root of its own: our CA stands below it."""

    root: TestCa

    def mint(self, request: CaRequest) -> MintedCa:
        ours = self.root.intermediate(key=_PublicHalf(request.public_key))
        return MintedCa((ours.certificate,), (self.root.certificate,))


@dataclass(frozen=True)
class _PublicHalf:
    """A key that can be certified and cannot sign here."""

    key: PublicKey

    def public_key(self) -> PublicKey:
        return self.key
