"""The fixture of the e2e tests that starts a `livery up` serves here too."""

from __future__ import annotations

from tests.e2e.conftest import start_up

__all__ = ["start_up"]
