"""The nearest policies are the nearest: what the sets of bits find is what counting finds, and each reason is true."""

from __future__ import annotations

import random

import pytest

from livery_policy import cedar
from livery_policy.engine.compiling import CompiledPolicy
from livery_policy.engine.decide import Engine
from livery_policy.engine.reasons import MAX_PROBED, Nearest, _failed_axes
from livery_policy.engine.slices import Slices
from livery_policy.model.decision import Reason
from livery_policy.model.entities import Pair
from tests.policies import AT, VOCABULARY
from tests.properties.test_policy_slices import ACTIONS, IDS, call, mesh


@pytest.mark.parametrize("seed", range(3))
def test_the_candidates_are_those_with_the_fewest_failed_axes_in_the_order_of_their_ids(seed: int) -> None:
    of, rng = mesh(seed, 60), random.Random(seed)
    nearest, slices = Nearest(of.compiled, cedar.ask), Slices(of.compiled)
    permits = [p for p in of.compiled.policies if p.effect == "permit"]
    for _ in range(100):
        pair = of.book.pair(rng.choice(IDS), rng.choice(IDS))
        assert isinstance(pair, Pair)
        keys = slices.scope_keys(pair, rng.choice(ACTIONS))

        def failures(policy: CompiledPolicy, keys: object = keys) -> tuple[int, str]:
            return len(_failed_axes(policy, keys)), policy.id  # type: ignore[arg-type]  # bound early, as it is

        assert nearest._candidates(keys) == sorted(permits, key=failures)[:MAX_PROBED]


@pytest.mark.parametrize("seed", range(3))
def test_a_near_miss_has_failed_parts_and_only_denials_have_near_misses(seed: int) -> None:
    of, rng = mesh(seed, 8), random.Random(seed)
    judge = Engine(of.compiled, VOCABULARY)
    parts = {p.id: 3 + len(p.conditions) for p in of.compiled.policies}
    explained = 0
    for _ in range(200):
        judgement = judge.judge(call(rng), AT)
        explained += bool(judgement.nearest)
        assert not judgement.nearest or judgement.reason is Reason.NOT_PERMITTED
        for miss in judgement.nearest:
            assert miss.failed
            assert miss.held + len(miss.failed) == parts[miss.policy]
        counts = [(len(m.failed), m.policy) for m in judgement.nearest]
        assert counts == sorted(counts)
    assert explained
