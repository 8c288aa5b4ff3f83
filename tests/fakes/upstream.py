"""An upstream that certifies by self-signing, and can be told to fail or to answer with something else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from livery_ca.keys import KeyStore
from livery_ca.upstreams import CaRequest, MintedCa
from livery_ca.upstreams.self_signed import SelfSigned


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
