"""What `livery inspect` shows of an agent, as plain data ready for JSON.

Owns: the document and its field names (schema 1, documented in docs/agent.md). Pure; holds no secret: no key, no
token, and of certificates only what everybody may see. Does not own: who may read it (`doors.admin`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from livery.identity import TrustBundle, X509Svid
from livery_agent.identities.snapshot import Identity, Snapshot
from livery_agent.inspection.status import Failure, Status
from livery_agent.schedule import Renewal

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is looked at, at one moment."""

    snapshot: Snapshot
    status: Status
    node: X509Svid | None
    node_renewal: Renewal | None
    jwt_svids: int
    streams: int
    ca_address: str
    version: str


def document(scene: Scene, now: datetime) -> dict[str, Any]:
    """The agent as one JSON object."""
    snapshot, status = scene.snapshot, scene.status
    return {
        "schema": SCHEMA,
        "time": _time(now),
        "version": scene.version,
        "started_at": _time(status.started_at),
        "trust_domain": str(snapshot.trust_domain),
        "ready": snapshot.synced,
        "ca_address": scene.ca_address,
        "synced_at": _time(status.synced_at),
        "node": _node(scene),
        "bundles": [_bundle(bundle) for bundle in snapshot.bundles.values()],
        "acknowledged_sequence": status.acknowledged,
        "identities": [_identity(identity, now) for identity in snapshot.identities],
        "jwt_svids": scene.jwt_svids,
        "streams": scene.streams,
        "renewals": status.renewals,
        "failing": [_failure(failure) for failure in status.failures.values()],
        "last_error": _failure(status.last_error) if status.last_error else None,
        "clock_skew": status.skew or None,
    }


def _node(scene: Scene) -> dict[str, Any] | None:
    if scene.node is None:
        return None
    return {"spiffe_id": str(scene.node.id), **_svid(scene.node, scene.node_renewal)}


def _identity(identity: Identity, now: datetime) -> dict[str, Any]:
    entry = identity.entry
    return {
        "entry_id": entry.id,
        "spiffe_id": str(entry.spiffe_id),
        "hint": entry.hint,
        "selectors": sorted(map(str, entry.selectors)),
        "federates_with": [str(trust_domain) for trust_domain in entry.federates_with],
        "state": state_of(identity, now),
        "refusal": identity.refusal or None,
        **_svid(identity.svid, identity.renewal),
    }


def state_of(identity: Identity, now: datetime) -> str:
    """`valid`, `pending` (no SVID yet), `refused` (the CA will not sign) or `expired`."""
    if identity.svid is None:
        return "refused" if identity.refusal else "pending"
    return "valid" if identity.is_usable(now) else "expired"


def _svid(svid: X509Svid | None, renewal: Renewal | None) -> dict[str, Any]:
    return {
        "serial": f"{svid.serial:x}" if svid else None,
        "received_at": _time(renewal.received_at if renewal else None),
        "renew_at": _time(renewal.at if renewal else None),
        "expires_at": _time(renewal.expires_at if renewal else None),
    }


def _bundle(bundle: TrustBundle) -> dict[str, Any]:
    return {
        "trust_domain": str(bundle.trust_domain),
        "sequence": bundle.sequence,
        "x509_authorities": [
            {
                "subject_key_id": a.subject_key_id,
                "expires_at": _time(a.certificate.not_valid_after_utc),
                "tainted": a.tainted,
            }
            for a in bundle.x509_authorities
        ],
        "jwt_authorities": [{"key_id": key.key_id, "tainted": key.tainted} for key in bundle.jwt_authorities],
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {"work": failure.work, "error": failure.error, "at": _time(failure.at), "times": failure.times}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds") if moment else None
