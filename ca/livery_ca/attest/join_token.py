"""Node attestation by join token: a secret handed to one node out of band.

Owns: the reading of the token and its refusals. Does not own: the spending, which happens in the transaction that
records the certificate (`store.writes.SpendToken`); the look here only refuses early, and decides nothing.

Invariant: a token admits one key. That key may come again until the token ends, so that an agent whose reply was lost
is not locked out; no other key ever may.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from livery.identity import InvalidSpiffeId, SpiffeId, TrustDomain
from livery_ca.attest.attestor import Attested, Challenge, Evidence, MalformedEvidence
from livery_ca.model import JoinToken
from livery_ca.store.errors import TokenExpired, TokenRefused
from livery_ca.store.writes import SpendToken

TYPE = "join_token"
MAX_TOKEN_BYTES = 255
_USED = "failed to attest: join token does not exist or has already been used"
_EXPIRED = "join token expired"


class BadJoinToken(MalformedEvidence):
    """The token is unknown, has ended, or belongs to another key. Which of the first and last it is, is not said."""

    code: ClassVar[str] = "bad_join_token"


class Tokens(Protocol):
    """Where join tokens are kept."""

    async def get(self, value: str) -> JoinToken | None:
        """The token of this value."""
        ...


class JoinTokenAttestor:
    """Admits agents that hold a join token."""

    type = TYPE

    def __init__(self, trust_domain: TrustDomain, tokens: Tokens) -> None:
        self._trust_domain = trust_domain
        self._tokens = tokens

    async def attest(self, evidence: Evidence, challenge: Challenge) -> Attested:  # noqa: ARG002 - there is none
        """The agent named after the token; nothing is proved but that the token was known."""
        value, agent = _read(evidence.payload, self._trust_domain)
        token = await self._tokens.get(value)
        if token is None or not token.admits(evidence.key_hash):
            raise BadJoinToken(_USED)
        if token.expired(evidence.at):
            raise BadJoinToken(_EXPIRED)
        return Attested(agent, writes=(SpendToken(value, evidence.key_hash, evidence.at),))


def agent_of(trust_domain: TrustDomain, token: str) -> SpiffeId:
    """The SPIFFE ID of the agent that joins with this token. Raises `InvalidSpiffeId` when it is none we take."""
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidSpiffeId("not a join token", why=f"it is longer than {MAX_TOKEN_BYTES} bytes")
    if "/" in token:
        raise InvalidSpiffeId("not a join token", why="it holds a slash")
    return SpiffeId.of(trust_domain, f"/spire/agent/join_token/{token}")


def refusal(cause: TokenRefused) -> BadJoinToken:
    """The store's refusal to spend the token, in the words the agent knows."""
    return BadJoinToken(_EXPIRED if isinstance(cause, TokenExpired) else _USED)


def _read(payload: bytes, trust_domain: TrustDomain) -> tuple[str, SpiffeId]:
    """A token that could not be part of an ID was never given out, so it does not exist."""
    try:
        value = payload[: MAX_TOKEN_BYTES + 1].decode("ascii")
        return value, agent_of(trust_domain, value)
    except (UnicodeDecodeError, InvalidSpiffeId) as cause:
        raise BadJoinToken(_USED) from cause
