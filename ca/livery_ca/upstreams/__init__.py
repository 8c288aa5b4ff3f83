"""Where a CA certificate comes from: one Protocol, `Upstream`, and one module per source."""

from __future__ import annotations

from livery_ca.upstreams.upstream import CaRequest, MintedCa, Upstream, UpstreamError, UpstreamUnavailable

__all__ = ["CaRequest", "MintedCa", "Upstream", "UpstreamError", "UpstreamUnavailable"]
