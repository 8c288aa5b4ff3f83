"""The table of rights and the judgement of an agent's certificate."""

from __future__ import annotations

from datetime import timedelta

import pytest

from livery.wire import (
    agent_api,
    bundle_api,
    debug_api,
    entry_api,
    livery_api,
    localauthority_api,
    logger_api,
    svid_api,
    trustdomain_api,
    types_api,
)
from livery_ca.doors.guard.limits import LIMITED
from livery_ca.doors.guard.rights import RIGHTS, Active, Class, Inactive, agent_standing
from tests.fakes.clock import START
from tests.unit.ca.doors.values import HOUR, a_node, a_svid

AGENT = "/spire/agent/x509pop/abc"
WHY = types_api.PermissionDeniedDetails


def methods_of_the_wire() -> set[str]:
    found = set()
    for api in (
        agent_api,
        bundle_api,
        debug_api,
        entry_api,
        livery_api,
        localauthority_api,
        logger_api,
        svid_api,
        trustdomain_api,
    ):
        message = next(getattr(api, name) for name in api.__all__ if name.endswith("Request"))
        for service in message.DESCRIPTOR.file.services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_method_of_the_server_api_has_a_row_and_no_row_is_for_anything_else() -> None:
    health = {f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")}
    assert set(RIGHTS) == methods_of_the_wire() | health


@pytest.mark.parametrize(
    ("method", "classes"),
    [
        ("agent.v1.Agent/AttestAgent", Class.ANY),
        ("agent.v1.Agent/RenewAgent", Class.AGENT),
        ("agent.v1.Agent/PostStatus", Class.AGENT),
        ("agent.v1.Agent/BanAgent", Class.ADMIN | Class.LOCAL),
        ("bundle.v1.Bundle/GetBundle", Class.ANY),
        ("bundle.v1.Bundle/GetFederatedBundle", Class.ADMIN | Class.LOCAL | Class.AGENT),
        ("bundle.v1.Bundle/PublishJWTAuthority", Class.DOWNSTREAM),
        ("entry.v1.Entry/SyncAuthorizedEntries", Class.AGENT),
        ("entry.v1.Entry/BatchCreateEntry", Class.ADMIN | Class.LOCAL),
        ("svid.v1.SVID/BatchNewX509SVID", Class.AGENT),
        ("svid.v1.SVID/MintJWTSVID", Class.ADMIN | Class.LOCAL),
        ("svid.v1.SVID/NewDownstreamX509CA", Class.DOWNSTREAM),
        ("trustdomain.v1.TrustDomain/RefreshBundle", Class.ADMIN | Class.LOCAL),
        ("localauthority.v1.LocalAuthority/TaintX509Authority", Class.ADMIN | Class.LOCAL),
        ("debug.v1.Debug/GetInfo", Class.LOCAL),
        ("logger.v1.Logger/SetLogLevel", Class.LOCAL),
    ],
)
def test_a_method_is_open_to_the_classes_that_spire_opens_it_to(method: str, classes: Class) -> None:
    assert RIGHTS[f"/spire.api.server.{method}"] == classes


def test_only_attestation_and_our_own_bundle_are_open_to_strangers() -> None:
    open_to_all = {method.rpartition("/")[2] for method, classes in RIGHTS.items() if Class.ANY in classes}
    assert open_to_all == {"AttestAgent", "GetBundle"}


def test_every_limited_method_exists() -> None:
    assert set(LIMITED) <= set(RIGHTS)


def test_the_current_serial_is_active() -> None:
    node = a_node(AGENT, serial="7")
    assert agent_standing(a_svid(AGENT, 7), node, START) == Active(node)


def test_a_certificate_counts_to_its_last_instant() -> None:
    svid, node = a_svid(AGENT, 7), a_node(AGENT, serial="7")
    assert agent_standing(svid, node, svid.not_after) == Active(node)
    assert isinstance(agent_standing(svid, node, svid.not_after + timedelta(microseconds=1)), Inactive)


def test_the_renewed_serial_is_active_and_asks_to_be_promoted() -> None:
    node = a_node(AGENT, serial="7", new_serial="8")
    assert agent_standing(a_svid(AGENT, 8), node, START) == Active(node, promote=True)


@pytest.mark.parametrize(
    ("case", "reason", "text"),
    [
        ("expired", WHY.AGENT_EXPIRED, "SVID is expired"),
        ("unknown", WHY.AGENT_NOT_ATTESTED, "is not attested"),
        ("banned", WHY.AGENT_BANNED, "is banned"),
        ("superseded", WHY.AGENT_NOT_ACTIVE, 'expected to have serial number "9"; has "7"'),
    ],
)
def test_an_agent_whose_certificate_does_not_count_learns_why(case: str, reason: int, text: str) -> None:
    svid = a_svid(AGENT, 7)
    node = {"unknown": None, "banned": a_node(AGENT, serial=""), "superseded": a_node(AGENT, serial="9")}.get(
        case, a_node(AGENT, serial="7")
    )
    at = START + 2 * HOUR if case == "expired" else START
    standing = agent_standing(svid, node, at)
    assert isinstance(standing, Inactive)
    assert standing.reason == reason
    assert text in standing.text


def test_a_ban_wins_over_a_renewal_that_was_pending() -> None:
    """Banning empties both serials; were only the current one emptied, the pending one must not count either."""
    standing = agent_standing(a_svid(AGENT, 8), a_node(AGENT, serial="", new_serial="8"), START)
    assert isinstance(standing, Inactive)
    assert standing.reason == WHY.AGENT_BANNED


def test_an_empty_new_serial_promotes_nobody() -> None:
    standing = agent_standing(a_svid(AGENT, 8), a_node(AGENT, serial="7", new_serial=""), START + timedelta(minutes=1))
    assert isinstance(standing, Inactive)
