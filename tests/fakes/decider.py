"""A decider that says what it is told to say."""

from __future__ import annotations

from livery_policy.model.calls import Call
from livery_policy.model.decision import Decision


class FixedDecider:
    """A `Decider` with one answer; `asked` holds the calls."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.asked: list[Call] = []

    async def decide(self, call: Call) -> Decision:
        self.asked.append(call)
        return self.decision
