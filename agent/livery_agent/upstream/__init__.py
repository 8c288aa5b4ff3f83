"""The CA seen from here: the one connection to it, what is asked over it, and the gate its certificates pass.

A call's way: `calls` (one method for each RPC) → `connection` (the line of the moment) → the CA → `joining` or `sync`
(a conversation) or `refusals` (what a no means) → `acceptance` (whether a certificate may be used). `bootstrap` is what
the first connection knows the CA by.
"""

from livery_agent.upstream.calls import JoinDial, SigningRequest, Unsigned, Upstream

__all__ = ["JoinDial", "SigningRequest", "Unsigned", "Upstream"]
