"""The trust domain's signing authorities: prepared, activated, retired in time, and the bundle that follows from them.

Owns: which authority signs, when the next one is due, what is in our bundle. Does not own: keys (`keys`), CA
certificates (`upstreams`), issuing leaves (`issuance`).
"""

from __future__ import annotations

from livery_ca.authorities.keeper import Authorities, AuthorityParts, AuthoritySettings

__all__ = ["Authorities", "AuthorityParts", "AuthoritySettings"]
