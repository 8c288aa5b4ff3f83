"""The services of SPIRE's API that this authority does not offer yet: each of their methods says so.

Owns: `spire.api.server.trustdomain.v1.TrustDomain` and `spire.api.server.localauthority.v1.LocalAuthority`. Left out,
they would be "Method not found!": words that leave an administrator wondering which side is broken.
"""

from __future__ import annotations

from livery.wire import localauthority_api, trustdomain_api
from livery_ca.doors.unoffered import unoffered


def _methods(servicer: type) -> str:
    return " ".join(name for name in vars(servicer) if not name.startswith("_"))


@unoffered(_methods(trustdomain_api.TrustDomainServicer))
class TrustDomainDoor(trustdomain_api.TrustDomainServicer):
    """Federation relationships."""


@unoffered(_methods(localauthority_api.LocalAuthorityServicer))
class LocalAuthorityDoor(localauthority_api.LocalAuthorityServicer):
    """The rotation of authorities by hand."""
