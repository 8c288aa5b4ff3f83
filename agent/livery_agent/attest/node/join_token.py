"""Node attestation by join token: whoever holds the one-time token is the node.

Owns: the client's half, which is to present the token. Does not own: spending it (the CA does, bound to our key, so
that the same request may be repeated when its reply was lost).

The token is a secret until spent: it is in no log, no error and no `repr` of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from livery.errors import LiveryError
from livery.runtime.files import read_private
from livery_agent.attest.node.attestor import NodeProof
from livery_agent.errors import NodeProofUnavailable

MAX_TOKEN = 1024


@dataclass(frozen=True, slots=True)
class JoinTokenAttestor:
    """Presents a token given by value or, better, in a private file."""

    token: str = field(default="", repr=False)
    path: Path | None = None
    method: str = "join_token"

    def prove(self) -> NodeProof:
        """The token's bytes are the whole payload (SPIRE: no JSON around it), and nothing is asked in return."""
        token = self.token or self._from_file()
        if not token or len(token) > MAX_TOKEN or not token.isprintable():
            raise NodeProofUnavailable(
                "the join token is not usable",
                why="it is empty, too long or not plain text",
                fix="create one with `livery token create` and give it to this agent",
            )
        return NodeProof(payload=token.encode(), answer=_refuse_challenge)

    def _from_file(self) -> str:
        if self.path is None:
            return ""
        try:
            return read_private(self.path).decode("utf-8").strip()
        except (LiveryError, UnicodeDecodeError) as cause:
            why, fix = (cause.what, cause.fix) if isinstance(cause, LiveryError) else ("it is not text", "")
            raise NodeProofUnavailable(f"the join token in {self.path} cannot be read", why=why, fix=fix) from cause


def _refuse_challenge(_challenge: bytes) -> bytes:
    raise NodeProofUnavailable("the CA set a challenge for a join token", why="the method knows none")
