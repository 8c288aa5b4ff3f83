"""What policies may speak of when they are asked without a server: what the server's configuration says.

Owns: reading the `[policy]` table for that. Does not own: the configuration (`livery_policy.config`), which is loaded
here and not before, or the vocabulary.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livery_policy.model.vocabulary import Vocabulary


def configured_vocabulary(config_file: Path | None) -> Vocabulary:
    """The headers and claims that a server started with this file, in this environment, knows. Raises `ConfigError`."""
    from livery.runtime.config import load
    from livery_policy.config import PolicyConfig

    return load(PolicyConfig, "policy", config_file, os.environ).vocabulary()
