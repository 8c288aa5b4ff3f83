"""docs/interop.md says what is true of our side: its configurations are ones that livery's agent takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from livery_agent.config import AgentConfig

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "interop.md"


def test_the_agents_configurations_are_taken_with_either_way_to_attest() -> None:
    with_token, x509pop = (
        tomllib.loads(block)["agent"]
        for block in re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    )
    assert AgentConfig(**with_token).join_token
    shared = {name: value for name, value in with_token.items() if name != "join_token"}
    assert AgentConfig(**shared, **x509pop).x509pop
