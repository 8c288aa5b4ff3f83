"""Wiring that no door shows by itself: who is an administrator of this machine, and which limit is whose."""

from __future__ import annotations

import os

from livery_ca import main
from livery_ca.config import CaConfig
from livery_ca.doors.guard.limits import LimitSettings


def test_the_administrators_of_this_machine_are_our_own_user_and_root() -> None:
    """Hazard 12."""
    assert main._is_administrator(os.geteuid())
    assert main._is_administrator(0)
    assert not main._is_administrator(os.geteuid() + 1)


def test_each_limit_is_its_own_setting_and_nought_lifts_it() -> None:
    config = CaConfig.model_validate(
        {
            "trust_domain": "example.org",
            "limits": {"attestation": 2, "x509_signing": 3, "jwt_signing": 4, "post_status": 5},
        }
    )
    assert main._limit_settings(config) == LimitSettings(attestation=2, x509_signing=3, jwt_signing=4, post_status=5)
    lifted = CaConfig.model_validate(
        {"trust_domain": "example.org", "limits": dict.fromkeys(("attestation", "x509_signing", "jwt_signing"), 0)}
    )
    assert main._limit_settings(lifted) == LimitSettings(None, None, None, post_status=10)
