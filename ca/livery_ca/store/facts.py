"""A few facts about the store as a whole, by name: which trust domain it belongs to, and since when.

Owns: the `facts` table. Invariant: a store belongs to one trust domain for good.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select

from livery.identity import TrustDomain
from livery_ca.store import schema
from livery_ca.store.errors import StoreForeign

_TRUST_DOMAIN = "trust_domain"
_CREATED_AT = "created_at"


def trust_domain(connection: Connection) -> str | None:
    """The name of the trust domain this store belongs to; None before it was claimed."""
    return _read(connection, _TRUST_DOMAIN)


def claim(connection: Connection, domain: TrustDomain, at: datetime) -> None:
    """Make the store this trust domain's, or raise `StoreForeign` if it is another's."""
    owner = trust_domain(connection)
    if owner is None:
        rows = [{"name": _TRUST_DOMAIN, "value": domain.name}, {"name": _CREATED_AT, "value": at.isoformat()}]
        connection.execute(insert(schema.facts), rows)
    elif owner != domain.name:
        fix = f"set the trust domain back to {owner}, or give {domain} a state directory of its own"
        raise StoreForeign(f"this state belongs to the trust domain {owner}", why=f"asked for {domain}", fix=fix)


def _read(connection: Connection, name: str) -> str | None:
    return connection.execute(select(schema.facts.c.value).where(schema.facts.c.name == name)).scalar_one_or_none()
