"""Pages of lists on the wire: page sizes and tokens, selector and trust-domain matches.

Owns: the token (the row id of the last item, in decimal) and the reading of matches. Does not own: the lists.

Invariants: as SPIRE has it, a page with items always has a token, so a list ends with one empty page and no token. A
page size of zero or less is everything in one message. What is matched has a bound: no database compares with any
number of values.
"""

from __future__ import annotations

from typing import TypeVar

from livery.identity import TrustDomain
from livery.wire import types_api
from livery_ca.doors.messages import ids
from livery_ca.doors.refusals import InvalidArgument
from livery_ca.model import DomainMatch, Listing, Match, Page, SelectorMatch

Item = TypeVar("Item")

MOST_MATCHED = 1000  # selectors or trust domains of a filter

_LARGEST_ROW = 2**63 - 1


def read_page(size: int, token: str) -> Page:
    """The page asked for. Without a size the token means nothing."""
    if size <= 0:
        return Page()
    if not token:
        return Page(size)
    if not (token.isascii() and token.isdigit()) or len(token) > 19 or int(token) > _LARGEST_ROW:
        raise InvalidArgument(f"could not parse token {token[:64]!r}", why="it is none that we gave")
    return Page(size, int(token))


def next_token(page: Page, listing: Listing[Item]) -> str:
    """The token of the page after this one."""
    return "" if page.size <= 0 or listing.last_row is None else str(listing.last_row)


def read_selector_match(message: types_api.SelectorMatch) -> SelectorMatch:
    """A match by selectors; an empty set is refused, since it would match nothing or everything."""
    _check_number(len(message.selectors), "selectors")
    selectors = frozenset(ids.selectors(message.selectors))
    if not selectors:
        raise ids.BadSelector("empty selector set")
    return SelectorMatch(selectors, _read_behavior(message.match))


def read_domain_match(message: types_api.FederatesWithMatch) -> DomainMatch:
    """A match by the trust domains an entry federates with."""
    _check_number(len(message.trust_domains), "trust domains")
    domains = frozenset(TrustDomain.parse(name) for name in message.trust_domains)
    if not domains:
        raise ids.BadId("empty trust domain set")
    return DomainMatch(domains, _read_behavior(message.match))


def _check_number(number: int, of_what: str) -> None:
    if number > MOST_MATCHED:
        raise ids.BadSelector(f"too many {of_what}", why=f"{number} are more than {MOST_MATCHED}")


def _read_behavior(number: int) -> Match:
    try:
        return Match(number)
    except ValueError as cause:
        raise ids.BadSelector("unknown match behavior", why=f"there is no number {number}") from cause
