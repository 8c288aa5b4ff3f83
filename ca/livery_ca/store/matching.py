"""Sets matched in SQL: the four ways of the SPIRE API over a table of members.

Owns: turning a `Match` into a condition. Does not own: which table, which members.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Table, exists, func, not_, select, tuple_

from livery_ca.model import DomainMatch, Match, SelectorMatch
from livery_ca.store import schema


def by_selectors(owner: Table, members: Table, wanted: SelectorMatch) -> ColumnElement[bool]:
    """The condition that a row of `owner` has selectors (rows of `members`) which match."""
    pairs = [(selector.type, selector.value) for selector in sorted(wanted.selectors)]
    within = tuple_(members.c.type, members.c.value).in_(pairs)
    return _condition(owner, members, within, len(pairs), wanted.match)


def by_domains(wanted: DomainMatch) -> ColumnElement[bool]:
    """The condition that an entry federates with trust domains which match."""
    names: Sequence[str] = sorted(domain.name for domain in wanted.trust_domains)
    members = schema.entry_federations
    return _condition(schema.entries, members, members.c.trust_domain.in_(names), len(names), wanted.match)


def _condition(
    owner: Table, members: Table, within: ColumnElement[bool], size: int, match: Match
) -> ColumnElement[bool]:
    own = members.c.row_id == owner.c.row_id
    some_within = exists().where(own, within)
    none_outside = not_(exists().where(own, not_(within)))
    # Members are unique per row (primary key), so having `size` of the wanted ones is having them all.
    count = select(func.count()).select_from(members).where(own, within)
    all_within = count.correlate(owner).scalar_subquery() == size
    match match:
        case Match.ANY:
            return some_within
        case Match.SUBSET:
            return some_within & none_outside
        case Match.SUPERSET:
            return all_within
        case Match.EXACT:
            return all_within & none_outside
